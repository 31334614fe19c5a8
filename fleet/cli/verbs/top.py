"""top: a live view of the fleet with keys: order, filter, tree, logs, stacks."""

from __future__ import annotations

import argparse
import locale
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from fleet.cli.live_view import WATCH_SECONDS, every_second, watcher
from fleet.cli.output import Output
from fleet.cli.target import applied_or_told, fleet_of, no_names, output_flag, target_flags, target_of
from fleet.cli.top.drawing import Row, Screen, drawn, rows_of
from fleet.cli.top.keys import TopState, pressed
from fleet.cli.top.measuring import Measuring, Picture, Sight
from fleet.cli.top.terminal import Terminal
from fleet.cli.view import status_document
from fleet.core.desired import group_of
from fleet.core.status import Status
from fleet.core.text.format import one_line
from fleet.errors import FleetError
from fleet.replica.task_counters import Histogram, TaskCounts
from fleet.state import logs

if TYPE_CHECKING:
    from fleet.operate.local_fleet import LocalFleet

LOG_LINES = 1000
STACKS_SECONDS = 3.0


def top_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    output_flag(parser)


def top(args: argparse.Namespace, out: Output) -> int:
    """A live view with keys; where there is no terminal, as in ``watch``, one picture of it."""
    target = target_of(args)
    no_names(target)
    fleet = fleet_of(target)
    look = watcher(fleet, target)
    applied_or_told(fleet, out)
    if out.is_json:
        every_second(lambda: out.line(status_document(look())))
    blocks = "utf" in (getattr(out.stdout, "encoding", "") or locale.getpreferredencoding()).lower()
    view = _Top(fleet, look)
    if out.stdout.isatty():
        view.run(Terminal(out.stdout), colour=out.colour, blocks=blocks)
        return 0
    view.measure()
    time.sleep(WATCH_SECONDS)  # a rate takes two looks
    screen = Screen(shutil.get_terminal_size().columns, None, colour=out.colour, blocks=blocks)
    out.facts("\n".join(drawn(view.measure(), TopState(), screen)))
    return 0


class _Top:
    """Looks once a second and draws; a key is obeyed at once."""

    def __init__(self, fleet: LocalFleet, look: Callable[[], Status]) -> None:
        from fleet.operate.metrics.collecting import FleetCounters

        self._fleet = fleet
        self._counters = FleetCounters(fleet.places)
        self._look = look
        self._measuring = Measuring()
        self._state = TopState()
        self._text: list[str] = []

    def measure(self) -> Picture:
        """One more look."""
        status = self._look()
        return self._measuring.take(Sight(status, time.monotonic(), self._waits(set(status.groups))))

    def run(self, terminal: Terminal, *, colour: bool, blocks: bool) -> None:
        """Until q, INT or TERM."""
        with terminal.opened():
            picture = self.measure()
            while True:
                due = time.monotonic() + WATCH_SECONDS
                self._draw(terminal, picture, colour=colour, blocks=blocks)
                for key in terminal.keys(until=due):
                    if not self._press(key, picture, terminal, colour=colour, blocks=blocks):
                        return
                    self._draw(terminal, picture, colour=colour, blocks=blocks)
                if not self._state.paused:
                    picture = self.measure()
                    self._refresh_text()

    def _draw(self, terminal: Terminal, picture: Picture, *, colour: bool, blocks: bool) -> None:
        width, height = terminal.size()
        screen = Screen(width, height, colour=colour, blocks=blocks)
        terminal.show(drawn(picture, self._state, screen, text=self._text))

    def _press(self, key: str, picture: Picture, terminal: Terminal, *, colour: bool, blocks: bool) -> bool:
        rows, before = rows_of(picture, self._state), self._state
        chosen = _chosen(rows, before.selected)
        screen = Screen(*terminal.size())
        state = pressed(
            before,
            key,
            rows=[row.name for row in rows],
            group=chosen.group.name if chosen is not None else "",
            page_rows=screen.table_rows,
        )
        if state is None:
            return False
        self._state = state
        if state.page != before.page and state.page in ("logs", "stacks"):
            self._open(chosen, terminal, picture, colour=colour, blocks=blocks)
        return True

    def _open(self, chosen: Row | None, terminal: Terminal, picture: Picture, *, colour: bool, blocks: bool) -> None:
        if chosen is None:
            self._state = TopState(filter=self._state.filter)
            return
        self._state = _selecting(self._state, chosen.name)
        if self._state.page == "logs":
            self._refresh_text()
            return
        self._text = ["asking …"]
        self._draw(terminal, picture, colour=colour, blocks=blocks)
        self._text = self._stacks(chosen)

    def _refresh_text(self) -> None:
        if self._state.page == "logs":
            known = logs.files(self._fleet.places.log)
            picked = {name: known[name] for name in logs.chosen(list(known), [self._state.selected])}
            lines = logs.merged(picked, last=LOG_LINES)
            prefixed = len(picked) > 1
            self._text = [_log_line(line, prefixed=prefixed) for line in lines] or ["nothing was logged yet"]

    def _stacks(self, chosen: Row) -> list[str]:
        from fleet.cli.verbs.stacks import stacks_of

        workers = [chosen.worker] if chosen.worker is not None else list(chosen.group.workers)
        paths = {one.name: self._fleet.places.record_file(one.name) for one in workers}
        try:
            texts = stacks_of(paths, wait_seconds=STACKS_SECONDS)
        except FleetError as error:
            return [error.message, *([error.hint] if error.hint else [])]
        return [one_line(line) for name, text in texts.items() for line in (f"== {name}", *text.splitlines())]

    def _waits(self, groups: set[str]) -> dict[str, Histogram]:
        found = dict.fromkeys(groups, TaskCounts())
        for replica, view in self._counters.read(groups).items():
            for task in view.tasks.values():
                found[group_of(replica)] += task
        return {group: counts.wait for group, counts in found.items()}


def _log_line(line: logs.Line, *, prefixed: bool) -> str:
    text = one_line(line.text, most=len(line.text) + 1)
    return f"{line.replica} | {text}" if prefixed else text


def _chosen(rows: list[Row], selected: str) -> Row | None:
    return next((row for row in rows if row.name == selected), rows[0] if rows else None)


def _selecting(state: TopState, name: str) -> TopState:
    return replace(state, selected=name)
