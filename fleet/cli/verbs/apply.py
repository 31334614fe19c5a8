"""apply: bring a fleet to its manifest, or carry out exactly a saved plan."""

from __future__ import annotations

import argparse

from fleet.broker import server_version
from fleet.cli.change_flow import ChangeFlags, change_flags, destroy_flag, owner_flags, run_change
from fleet.cli.cluster_target import in_cluster, ownership_flag, place_flags
from fleet.cli.output import Output
from fleet.cli.saved_plan import check_fresh, check_seal, manifest_in, read_saved
from fleet.cli.target import fleet_for, manifest_of, no_names, output_flag, target_flags, target_of
from fleet.core.desired import BROKER_GROUP
from fleet.inputs.accounts import root_warning
from fleet.inputs.facts import resolved
from fleet.inputs.secrets import fleet_key
from fleet.operate.change import refuse_failed
from fleet.operate.local_fleet import PlannedChange


def apply_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    place_flags(parser)
    change_flags(parser)
    parser.add_argument("--prune", action="store_true", help="also remove groups that are no longer in the manifest")
    parser.add_argument("--retry", action="store_true", help="also what failed before and was taken back, unchanged")
    destroy_flag(parser)
    owner_flags(parser)
    ownership_flag(parser)
    output_flag(parser)


def apply(args: argparse.Namespace, out: Output) -> int:
    """Bring the fleet to its manifest, or carry out exactly a saved plan."""
    target = target_of(args)
    no_names(target)
    if (there := in_cluster(args, target)) is not None:
        from fleet.cli import cluster_flow

        return cluster_flow.apply(there, args, out)
    document = read_saved(target.manifests[0]) if len(target.manifests) == 1 else None
    loaded = manifest_in(document, target.manifests[0]) if document is not None else manifest_of(target)
    prune = bool(document["prune"]) if document is not None else args.prune
    fleet = fleet_for(loaded)
    if document is not None:
        check_seal(document, target.manifests[0], key=fleet_key(fleet.places.key))
    for warning in loaded.warnings:
        out.say(f"warning: {warning}")
    if as_root := root_warning(loaded):
        out.say(f"warning: {as_root}")

    warned: set[str] = set()

    def look() -> PlannedChange:
        pinned = resolved(loaded)
        desired, secrets = fleet.desired_of(pinned)
        if not args.retry:
            refuse_failed(fleet, pinned, secrets)
        change = fleet.planned(desired, secrets, manifest=pinned, prune=prune)
        if document is not None:
            check_fresh(document, change.plan)
        _warn_of_server(change, out, warned)
        return change

    return run_change(fleet, out, verb="apply", look=look, flags=ChangeFlags.of(args))


def _warn_of_server(change: PlannedChange, out: Output, warned: set[str]) -> None:
    """Once, where the embedded broker is about to start on a server with known holes."""
    starts = [step.target for step in change.plan.changes if step.target is not None]
    for server in {one.spec.command[0] for one in starts if one.group == BROKER_GROUP} - warned:
        warned.add(server)
        if known := server_version.warning(server):
            out.say(f"warning: {known}; {server_version.HINT}")
