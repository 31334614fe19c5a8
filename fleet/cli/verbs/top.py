"""top: a live view of the fleet, the busiest replicas first."""

from __future__ import annotations

import argparse
import time

from fleet.cli.live_view import every_second, height, looker, redraw
from fleet.cli.output import Output
from fleet.cli.target import fleet_of, no_names, output_flag, target_flags, target_of
from fleet.cli.view import status_document, top_text
from fleet.core.status import Status
from fleet.errors import UsageError


def top_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    output_flag(parser)


def top(args: argparse.Namespace, out: Output) -> int:
    """A live view, the busiest first."""
    target = target_of(args)
    no_names(target)
    look = looker(fleet_of(target), target)
    if out.is_json:
        every_second(lambda: out.line(status_document(look())))
    if not out.stdout.isatty():
        raise UsageError("top needs a terminal", hint="`fleet status --watch` works without one, and so does -o json")
    rate = _Rate()

    def frame() -> str:
        seen = look()
        return top_text(seen, per_second=rate.of(seen), height=height(), colour=out.colour)

    redraw(out, frame)
    return 0


class _Rate:
    """Tasks per second between two looks."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def of(self, seen: Status) -> float | None:
        now, done = time.monotonic(), sum(group.processed for group in seen.groups.values())
        last, self._last = self._last, (now, done)
        return None if last is None else max(0, done - last[1]) / max(0.001, now - last[0])
