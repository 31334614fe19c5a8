"""Lines of logs as they are written, for one page: a thread follows the files and hands over what came together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from fleet.errors import FleetError
from fleet.operate.dashboard.facts import line_document
from fleet.operate.dashboard.live import Follower
from fleet.operate.dashboard.shown import shown_json
from fleet.operate.local_fleet import LocalFleet
from fleet.state import logs

MOST_STREAMS = 20
FIRST_LINES = 300
"""What a page begins with, also when it has lost its connection: nothing that was written in between is left out."""
MOST_LINES = 500
"""In one piece: of a flood a page gets the end of each piece, and is told how many lines were left out."""


class _Over(Exception):
    """The page is gone."""


class LogStreams:
    """All pages that follow logs. For one event loop."""

    def __init__(self) -> None:
        self._open: dict[Follower, threading.Event] = {}

    def begin(self, fleet: LocalFleet, names: tuple[str, ...]) -> Follower:
        """Follow these groups or replicas, all where none is named. Raises FleetError where too many do."""
        if len(self._open) >= MOST_STREAMS:
            raise FleetError(f"{MOST_STREAMS} pages follow logs already", hint="close some of them")
        follower, over = Follower(fleet.name), threading.Event()
        self._open[follower] = over
        loop = asyncio.get_running_loop()

        def give(text: str | None) -> None:
            if not follower.give(text):
                over.set()
                follower.give(None)

        lines = _Lines(fleet.places.log, names, give=lambda text: loop.call_soon_threadsafe(give, text), over=over)
        threading.Thread(target=lines.run, name=f"logs-{fleet.name}", daemon=True).start()
        return follower

    def end(self, follower: Follower) -> None:
        """It is gone."""
        if (over := self._open.pop(follower, None)) is not None:
            over.set()

    def close(self) -> None:
        """Tell every page that it is over."""
        for follower, over in self._open.items():
            over.set()
            follower.give(None)
        self._open.clear()


class _Lines:
    """What one page gets: the last lines, then those that are written. Runs in a thread until it is over.

    give: may raise RuntimeError when nobody takes anything any more.
    """

    def __init__(
        self, folder: Path, names: tuple[str, ...], *, give: Callable[[str], object], over: threading.Event
    ) -> None:
        self._folder = folder
        self._names = names
        self._give = give
        self._over = over
        self._lines: list[logs.Line] = []

    def run(self) -> None:
        """Read, and follow from there."""
        known = logs.files(self._folder)
        sizes = logs.sizes(known)
        chosen = {name: known[name] for name in logs.chosen(list(known), self._names)}
        self._lines += logs.merged(chosen, last=FIRST_LINES, until=sizes)
        try:
            self._send(whole=True)
            for line in logs.follow(self._folder, self._names, from_sizes=sizes, sleep=self._rest):
                self._lines.append(line)
                if len(self._lines) >= 10 * MOST_LINES:
                    self._rest(0.0)
        except (_Over, RuntimeError):  # the loop is closed
            return

    def _send(self, *, whole: bool) -> None:
        found = [line_document(line) for line in self._lines[-MOST_LINES:]]
        left_out = max(0, len(self._lines) - MOST_LINES)
        self._give(shown_json({"whole": whole, "lines": found, "leftOut": left_out}))
        self._lines.clear()

    def _rest(self, seconds: float) -> None:
        if self._lines:
            self._send(whole=False)
        if self._over.wait(seconds):
            raise _Over
