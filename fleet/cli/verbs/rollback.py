"""rollback: go back to an earlier revision, by an ordinary plan."""

from __future__ import annotations

import argparse

from fleet.cli.change_flow import ChangeFlags, change_flags, destroy_flag, owner_flags, run_change
from fleet.cli.cluster_target import in_cluster, ownership_flag, place_flags
from fleet.cli.output import Output
from fleet.cli.target import fleet_of, no_names, output_flag, target_flags, target_of
from fleet.errors import UsageError
from fleet.inputs.manifest import LoadedManifest, from_revision
from fleet.operate.local_fleet import LocalFleet, PlannedChange


def rollback_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    place_flags(parser)
    parser.add_argument("--to", type=int, metavar="N", help="the revision (default: the last good one that differs)")
    change_flags(parser)
    destroy_flag(parser)
    owner_flags(parser)
    ownership_flag(parser)
    output_flag(parser)


def rollback(args: argparse.Namespace, out: Output) -> int:
    """Apply an earlier revision. Groups that were added after it are removed."""
    target = target_of(args)
    no_names(target)
    if (there := in_cluster(args, target)) is not None:
        from fleet.cli import cluster_flow

        return cluster_flow.rollback(there, args, out)
    fleet = fleet_of(target)
    loaded = _earlier(fleet, args.to)

    def look() -> PlannedChange:
        applied = fleet.applied()
        desired, secrets = fleet.desired_of(loaded)
        groups = {*desired.groups, *(applied.desired.groups if applied is not None else ())}
        return fleet.planned(desired, secrets, manifest=loaded, prune=True, only=groups)

    code = run_change(fleet, out, verb="rollback", look=look, flags=ChangeFlags.of(args))
    if code == 0 and not args.dry_run and loaded.origin.sources:
        out.say(f"note: {', '.join(loaded.origin.sources)} did not change; the next apply follows them")
    return code


def _earlier(fleet: LocalFleet, number: int | None) -> LoadedManifest:
    if number is None:
        applied = fleet.applied()
        earlier = fleet.history.last_good(before=applied.revision if applied is not None else 0)
        if earlier is None:
            hint = "see `fleet history`; --to N goes to any of them"
            raise UsageError(f"fleet {fleet.name!r} has no earlier good revision that differs", hint=hint)
        number = earlier.number
    return from_revision(fleet.history.get(number), message=f"rollback to revision {number}")
