"""status: groups and replicas, what they do, and what differs from the last apply."""

from __future__ import annotations

import argparse
from typing import Any

from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.live_view import Looker, every_second, height, redraw, watcher
from fleet.cli.output import Output, cut
from fleet.cli.target import fleet_of, no_names, output_flag, target_flags, target_of
from fleet.cli.view import status_document, status_text, totals_text
from fleet.core.status import Status
from fleet.errors import Damaged, NotReady, UsageError
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.notify.overview import failing, summary
from fleet.replica.image import states


def status_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    place_flags(parser)
    parser.add_argument(
        "--exit-code", action="store_true", help=f"exit {NotReady.exit_code} where the fleet is not ready"
    )
    parser.add_argument(
        "--totals", action="store_true", help="what groups and replicas have done in all their processes"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="refresh every second")
    output_flag(parser)


def status(args: argparse.Namespace, out: Output) -> int:
    """Print the status, once or every second."""
    target = target_of(args)
    no_names(target)
    if args.exit_code and args.watch:
        raise UsageError("--exit-code and --watch at once", hint="`fleet wait` waits until the fleet is ready")
    if (there := in_cluster(args, target)) is not None:
        from fleet.cli import cluster_status

        return cluster_status.status(there, args, out)
    fleet = fleet_of(target)
    look = watcher(fleet, target)
    text = _totals if args.totals else _text
    if not args.watch:
        seen = look()
        if not out.is_json:
            out.facts(text(fleet, look, seen, out))
        else:
            if look.damage:
                out.say(f"warning: {look.damage}")
            out.document(_document(fleet, seen))
        return NotReady.exit_code if args.exit_code and not seen.ready else 0
    if out.is_json:
        every_second(lambda: out.line(_document(fleet, look())))
    elif out.stdout.isatty():
        redraw(out, lambda: "\n".join(cut(text(fleet, look, look(), out).splitlines(), height=height())))
    else:
        every_second(lambda: out.facts(text(fleet, look, look(), out) + "\n\n"))
    return 0


def _document(fleet: LocalFleet, seen: Status) -> dict[str, Any]:
    return {**status_document(seen), "notifications": summary(fleet.places)}


def _text(fleet: LocalFleet, look: Looker, seen: Status, out: Output) -> str:
    footer = [*_damage(look), *_images(fleet), *_overrides(fleet), *_moved(fleet), *failing(fleet.places)]
    return status_text(seen, footer=footer, colour=out.colour)


def _totals(_fleet: LocalFleet, look: Looker, seen: Status, out: Output) -> str:
    return "\n".join([totals_text(seen, colour=out.colour), *_damage(look)])


def _damage(look: Looker) -> list[str]:
    return [f"warning: {look.damage}"] if look.damage else []


def _images(fleet: LocalFleet) -> list[str]:
    return [state.shown for state in states(fleet.places.images)]


def _moved(fleet: LocalFleet) -> list[str]:
    """Groups that are not, or not only, on this host."""
    try:
        migration = fleet.migration()
    except Damaged as error:
        return [f"error: {error.message} ({error.hint})"]
    moved = migration.moved() if migration is not None else {}
    return [f"{name}: {part.why} (`fleet migrate status`)" for name, part in sorted(moved.items())]


def _overrides(fleet: LocalFleet) -> list[str]:
    now = fleet.now()
    try:
        return [f"override: {one}" for one in fleet.kept_overrides() if one.holds(now)]
    except Damaged as error:
        return [f"error: {error.message} ({error.hint})"]
