"""status, top: what a fleet does now."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from typing import Any

from fleet.cli.output import Output, cut
from fleet.cli.target import Target, no_names, output_flag, session_of, target_flags, target_of, wanted_of
from fleet.cli.view import status_text, top_text
from fleet.core.desired import Desired
from fleet.core.status import Status, document, summarise
from fleet.errors import UsageError
from fleet.session import Session

WATCH_SECONDS = 1.0
_SYSTEM_KEY = "system"


def status_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of status."""
    target_flags(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="again every second")
    output_flag(parser)


def status(args: argparse.Namespace, out: Output) -> int:
    """One look, or one every second."""
    target = target_of(args)
    no_names(target)
    session = session_of(target)
    look = _looker(session, target)
    if not args.watch:
        seen = look()
        out.either(status_document(seen), _text(session, seen, out))
        return 0
    if out.is_json:
        _every_second(lambda: out.line(status_document(look())))
    elif out.stdout.isatty():
        _live(out, lambda: "\n".join(cut(_text(session, look(), out).splitlines(), height=_height())))
    else:
        _every_second(lambda: out.facts(_text(session, look(), out) + "\n\n"))
    return 0


def status_document(status: Status) -> dict[str, Any]:
    """For scripts: fleet's own programs are groups like any other."""
    made = document(status)
    made["groups"] |= made.pop(_SYSTEM_KEY, {})
    return made


def top_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of top."""
    target_flags(parser)
    output_flag(parser)


def top(args: argparse.Namespace, out: Output) -> int:
    """A live view, the busiest first."""
    target = target_of(args)
    no_names(target)
    look = _looker(session_of(target), target)
    if out.is_json:
        _every_second(lambda: out.line(status_document(look())))
    if not out.stdout.isatty():
        raise UsageError("top needs a terminal", hint="`fleet status --watch` works without one, and so does -o json")
    rate = _Rate()

    def frame() -> str:
        seen = look()
        return top_text(seen, per_second=rate.of(seen), height=_height(), colour=out.colour)

    _live(out, frame)
    return 0


class _Rate:
    """Tasks per second between two looks."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def of(self, seen: Status) -> float | None:
        now, done = time.monotonic(), sum(group.processed for group in seen.groups.values())
        last, self._last = self._last, (now, done)
        return None if last is None else max(0, done - last[1]) / max(0.001, now - last[0])


def _looker(session: Session, target: Target) -> Callable[[], Status]:
    """Compares with what was applied last; before the first apply with the manifest at hand."""
    first = _desired(session, target)

    def look() -> Status:
        standing = session.standing()
        desired = first if standing is None else None if standing.down else standing.desired
        return summarise(desired, session.backend.observe(), revision=standing.revision if standing else 0)

    return look


def _desired(session: Session, target: Target) -> Desired | None:
    if session.standing() is not None or not target.sources():
        return None
    return session.aim(wanted_of(target)).desired


def _text(session: Session, seen: Status, out: Output) -> str:
    now = session.now()
    overrides = [f"override: {one}" for one in session.overrides() if one.holds(now)]
    return status_text(seen, footer=overrides, colour=out.colour)


def _height() -> int:
    return shutil.get_terminal_size().lines - 1


def _every_second(show: Callable[[], None]) -> None:
    while True:
        show()
        time.sleep(WATCH_SECONDS)


def _live(out: Output, frame: Callable[[], str]) -> None:
    """Redraw in place, on a screen of its own."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=out.stdout)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        _every_second(lambda: live.update(Text.from_ansi(frame(), no_wrap=True), refresh=True))
