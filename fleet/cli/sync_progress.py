"""What goes on while a source is followed, on a terminal: the stage of each loop, and the bars of a change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fleet.cli.output import Output
from fleet.cli.progress import Progress, step_bars
from fleet.core.plan import Plan
from fleet.operate.sync.watcher import NOBODY, Loop, Watcher

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from fleet.operate.apply.events import Event


class SyncProgress:
    """Shown from the first stage of a look to its last; told by the threads of both loops. In a pipe, nothing."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._shown: _Shown | None = None

    @property
    def watcher(self) -> Watcher:
        """Whom the source is to tell."""
        return Watcher(self._on_stage, self._on_event) if self._out.is_live else NOBODY

    def say(self, text: str) -> None:
        """A line of the log, above what is shown."""
        with self._lock:
            if self._shown is not None:
                self._shown.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                self._out.say(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._end()

    def _on_stage(self, loop: Loop, what: str) -> None:
        with self._lock:
            if what:
                self._shown = self._shown or _Shown(self._out)
                self._shown.begin(loop, what)
            elif self._shown is not None and not self._shown.rest(loop):
                self._end()

    def _on_event(self, events: Sequence[Event]) -> None:
        with self._lock:
            if self._shown is not None:
                self._shown.on_event(events)

    def _end(self) -> None:
        if self._shown is not None:
            self._shown.live.stop()
            self._shown = None


class _Shown:
    """One line per loop that does something, and below them the bars of a change."""

    def __init__(self, out: Output) -> None:
        from rich.console import Console, Group
        from rich.live import Live

        self._out = out
        self.console = Console(file=out.stderr)
        self._stages = _stage_lines(self.console)
        self._steps = step_bars(self.console)
        self._rows: dict[Loop, TaskID] = {}
        self._change: Progress | None = None
        self.live: Live = Live(Group(self._stages, self._steps), console=self.console, transient=True)
        self.live.start()

    def begin(self, loop: Loop, what: str) -> None:
        """What it does now; each stage has a clock of its own."""
        if loop in self._rows:
            self._stages.remove_task(self._rows[loop])
        self._rows[loop] = self._stages.add_task(what, total=None)
        self.live.refresh()

    def rest(self, loop: Loop) -> bool:
        """It does nothing for now; False where none does."""
        if loop in self._rows:
            self._stages.remove_task(self._rows.pop(loop))
        if loop == "fleet":
            self._change = None
            for row in self._steps.task_ids:
                self._steps.remove_task(row)
        return bool(self._rows)

    def on_event(self, events: Sequence[Event]) -> None:
        """Steps of a change; what is planned comes first."""
        if self._change is None:
            self._change = Progress(self._out, Plan("", tuple(event.step for event in events)))
            self._change.within(self._steps)
        self._change.on_event(events)
        self.live.refresh()


def _stage_lines(console: Console) -> Bar:
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Bar(*columns, console=console)
