"""A status that is refreshed: one after the other, or drawn in place on a screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleet.cli.output import Output
from fleet.cli.target import Target, manifest_of
from fleet.core.desired import Desired
from fleet.core.status import Status, summarise, with_totals
from fleet.errors import Damaged
from fleet.operate.local_fleet import LocalFleet
from fleet.state.totals import read_totals

WATCH_SECONDS = 1.0


def looker(fleet: LocalFleet, target: Target) -> Looker:
    """What returns the status now, compared with what was applied last, else with the manifest. Raises Damaged."""
    return Looker(fleet, _desired(fleet, target))


def watcher(fleet: LocalFleet, target: Target) -> Looker:
    """The same for people who watch: where what was applied cannot be read, they see what runs, and never as ready."""
    try:
        first = _desired(fleet, target)
    except Damaged:  # the first look says so
        first = None
    return Looker(fleet, first, shows_damage=True)


@dataclass(slots=True)
class Looker:
    """Called, it returns the status now. damage: what the last call could not read, and what to do about it, or ''."""

    _fleet: LocalFleet
    _first: Desired | None
    shows_damage: bool = False
    damage: str = ""

    def __call__(self) -> Status:
        self.damage = ""
        try:
            applied = self._fleet.applied()
        except Damaged as error:
            if not self.shows_damage:
                raise
            self.damage = f"{error.message} ({error.hint})"
            return replace(self._seen(None, revision=0), ready=False)
        if applied is None:
            return self._seen(self._first, revision=0)
        return self._seen(None if applied.down else applied.desired, revision=applied.revision)

    def _seen(self, desired: Desired | None, *, revision: int) -> Status:
        seen = summarise(desired, self._fleet.backend.observe(shares=True), revision=revision)
        return with_totals(seen, read_totals(self._fleet.places))


def _desired(fleet: LocalFleet, target: Target) -> Desired | None:
    if fleet.applied() is not None or not target.sources():
        return None
    desired, _ = fleet.desired_of(manifest_of(target))
    return desired


def height() -> int:
    """Lines of the terminal that one picture may use."""
    import shutil

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
