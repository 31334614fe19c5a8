"""Progress of an apply: bars on a terminal, of all steps and of the wave that goes on; a line per step elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fleet.cli.output import Output, painted, wants_colour
from fleet.core.plan import GLYPHS, Plan, Step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from fleet.operate.apply.events import Event

_NAMED = 3
_TIMES_WIDTH = 32
"""Columns of a line of steps beside its title, its bar, its counts and what is going: times, and what lies between."""


class Waves:
    """Which wave of a plan goes on, and how far it is."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = Counter(step.wave for step in steps)
        self._ended: Counter[int] = Counter()

    def end(self, step: Step) -> None:
        """A step is done, or failed."""
        self._ended[step.wave] += 1

    @property
    def total(self) -> int:
        """How many waves there are."""
        return len(self._steps)

    @property
    def current(self) -> tuple[int, int, int]:
        """(its number from 1 on, steps of it that ended, all steps of it); the last wave where all are over."""
        waves = sorted(self._steps)
        open_ones = [wave for wave in waves if self._ended[wave] < self._steps[wave]]
        wave = open_ones[0] if open_ones else waves[-1] if waves else 0
        return (waves.index(wave) + 1 if waves else 0), self._ended[wave], self._steps[wave]


class Progress:
    """Shows the events of one apply."""

    def __init__(self, out: Output, plan: Plan) -> None:
        self._out = out
        self._total = len(plan.changes)
        self._done = 0
        self._waves = Waves(plan.changes)
        self._shown_wave = 0
        self._going: dict[str, str] = {}
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if self._out.is_live and self._total:
            from rich.console import Console

            self.within(step_bars(Console(file=self._out.stderr))).start()
        return self

    def within(self, bars: Bar) -> Bar:
        """Draw in these, which are empty and somebody else may show."""
        self._bar = bars
        bars.add_task("all steps", total=self._total, going="")
        bars.add_task("", total=self._total, going="", visible=False)
        self._draw(bars)
        return bars

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_event(self, events: Sequence[Event]) -> None:
        """Show one event. What is planned comes first, and again where a failed rollout goes back."""
        if events and all(event.phase == "planned" for event in events):
            self._total, self._done = len(events), 0
            self._waves = Waves(event.step for event in events)
        for event in events:
            self._count(event)
        if self._bar is not None:
            self._draw(self._bar)

    def _draw(self, bar: Bar) -> None:
        names = list(self._going.values())
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        whole, part = bar.task_ids
        number, ended, steps = self._waves.current
        several = self._waves.total > 1
        title = f"wave {number} of {self._waves.total}"
        room = bar.console.width - _bar_width(bar.console) - len(title) - 2 * len(str(self._total)) - _TIMES_WIDTH
        going = _cut(f"{', '.join(names[:_NAMED])}{more}", room)
        if number != self._shown_wave:
            bar.reset(part, total=steps)  # each wave has a clock of its own
            self._shown_wave = number
        bar.update(whole, completed=self._done, total=self._total, going="" if several else going)
        bar.update(part, completed=ended, total=steps, going=going, description=title, visible=several)

    def _count(self, event: Event) -> None:
        match event.phase:
            case "started":
                self._going[event.step.id] = event.step.id
            case "done":
                self._going.pop(event.step.id, None)
                self._done += 1
                self._waves.end(event.step)
                self._print(event, "✓", "good")
            case "failed":
                self._going.pop(event.step.id, None)
                self._waves.end(event.step)
                self._print(event, "✗", "bad")

    def _print(self, event: Event, mark: str, style: str) -> None:
        """On a terminal only failures leave a line; elsewhere each end of a step does."""
        if self._bar is not None and event.phase == "done":
            return
        colour = wants_colour(self._out.stderr)
        glyph = painted(mark, style, colour=colour)
        width = len(str(self._total))
        count = f"[{self._done:>{width}}/{self._total}]"
        step = f"{GLYPHS[event.step.action]} {event.step.id}"
        why = f": {event.reason}" if event.phase == "failed" else ""
        line = f"{glyph} {count} {event.seconds:6.1f}s  {step}{why}"
        if self._bar is not None:
            self._bar.print(line, markup=False, highlight=False)
        else:
            self._out.say(line)


@contextmanager
def portion(out: Output, title: str, total: float) -> Iterator[Callable[[float], None] | None]:
    """A progress bar, on a terminal only; call the yielded function with how much is done, up to ``total``."""
    with share(out, title) as tell:
        yield None if tell is None else lambda done: tell(done, total)


@contextmanager
def share(out: Output, title: str) -> Iterator[Callable[[float, float], None] | None]:
    """The same, where only the work itself knows how much there is: call it with what is done, and of how much."""
    if not out.is_live:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=out.stderr), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def step_bars(console: Console) -> Bar:
    """Bars of steps, still empty."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(_bar_width(console)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[going]}", markup=False),
        console=console,
    )


def _bar_width(console: Console) -> int:
    return 20 if console.width >= 100 else 10


def _cut(text: str, room: int) -> str:
    """As much as there is room for: counts and times are worth more."""
    return text if len(text) <= room else f"{text[: max(0, room - 1)]}…"
