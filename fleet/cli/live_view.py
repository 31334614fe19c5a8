"""A status that is refreshed: one after the other, or drawn in place on a screen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from fleet.cli.output import Output
from fleet.cli.target import Target, manifest_of
from fleet.core.desired import Desired
from fleet.core.status import Status, summarise, with_totals
from fleet.operate.local_fleet import LocalFleet
from fleet.state.totals import read_totals

WATCH_SECONDS = 1.0


def looker(fleet: LocalFleet, target: Target) -> Callable[[], Status]:
    """A function that returns the status now, compared with what was applied last, else with the manifest."""
    first = _desired(fleet, target)

    def look() -> Status:
        applied = fleet.applied()
        desired = first if applied is None else None if applied.down else applied.desired
        seen = summarise(desired, fleet.backend.observe(shares=True), revision=applied.revision if applied else 0)
        return with_totals(seen, read_totals(fleet.places))

    return look


def _desired(fleet: LocalFleet, target: Target) -> Desired | None:
    if fleet.applied() is not None or not target.sources():
        return None
    desired, _ = fleet.desired_of(manifest_of(target))
    return desired


def height() -> int:
    """Lines of the terminal that one picture may use."""
    return shutil.get_terminal_size().lines - 1


def every_second(show: Callable[[], None]) -> None:
    """Refresh until INT or TERM."""
    while True:
        show()
        time.sleep(WATCH_SECONDS)


def redraw(out: Output, frame: Callable[[], str]) -> None:
    """Redraw in place, on a screen of its own."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=out.stdout)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        every_second(lambda: live.update(Text.from_ansi(frame(), no_wrap=True), refresh=True))
