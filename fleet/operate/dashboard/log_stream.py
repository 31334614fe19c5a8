"""Lines of logs as they are written, for one page: a thread follows the files and hands over what came together."""

from __future__ import annotations

import asyncio
import threading

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

        def run() -> None:
            folder = fleet.places.log
            known = logs.files(folder)
            sizes = logs.sizes(known)
            chosen = {name: known[name] for name in logs.chosen(list(known), names)}
            lines = logs.merged(chosen, last=FIRST_LINES, until=sizes)

            def send(*, whole: bool) -> None:
                found = [line_document(line) for line in lines[-MOST_LINES:]]
                document = {"whole": whole, "lines": found, "leftOut": max(0, len(lines) - MOST_LINES)}
                loop.call_soon_threadsafe(give, shown_json(document))
                lines.clear()

            def rest(seconds: float) -> None:
                if lines:
                    send(whole=False)
                if over.wait(seconds):
                    raise _Over

            try:
                send(whole=True)
                for line in logs.follow(folder, names, from_sizes=sizes, sleep=rest):
                    lines.append(line)
                    if len(lines) >= 10 * MOST_LINES:
                        rest(0.0)
            except (_Over, RuntimeError):  # the loop is closed
                return

        threading.Thread(target=run, name=f"logs-{fleet.name}", daemon=True).start()
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
