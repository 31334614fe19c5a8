"""resume: undo drain, pause and scale --live."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from fleet.cli.change_flow import run_change
from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.output import Output
from fleet.cli.override_flow import chosen, flags_of, named, override_flags, there
from fleet.cli.target import groups_of, target_of
from fleet.core.desired import Desired
from fleet.core.planning.selection import sharing
from fleet.operate.local_fleet import PlannedChange
from fleet.state.overrides import Override, ended


def resume_flags(parser: argparse.ArgumentParser) -> None:
    override_flags(parser, names="groups or replicas that go back to what the manifest says")
    place_flags(parser)


def resume(args: argparse.Namespace, out: Output) -> int:
    """End live exceptions."""
    if (place := in_cluster(args, target_of(args))) is not None:
        from fleet.cli import cluster_flow

        return cluster_flow.hold(place, args, out, on=False)
    fleet, names = named(args)

    def look() -> PlannedChange:
        before = fleet.kept_overrides()
        plain = fleet.desired_as_applied(overrides=())
        known = chosen(names, plain, replicas=there(fleet, plain))
        left = ended(before, known)
        desired = fleet.desired_as_applied(overrides=left)
        _mention(known, left, desired, out)

        def write() -> None:
            fleet.keep_overrides(left)
            gone = [one for one in before if one not in left]
            fleet.audit.write(*({"event": "override.ended", "override": str(one)} for one in gone))

        only = groups_of(known) | sharing(desired)
        return replace(fleet.steered(desired, only=only), before=write)

    return run_change(fleet, out, verb="resume", look=look, flags=flags_of(args, "resume", names))


def _mention(names: Sequence[str], left: Sequence[Override], desired: Desired, out: Output) -> None:
    """Say why a resumed group or replica stays as it is."""
    for group in sorted(groups_of(names)):
        if desired.groups[group].paused and not any(one.target == group and one.kind == "paused" for one in left):
            out.say(f"note: {group} is paused in the manifest: change `paused` there")
        held = any(one.target == group and one.kind in ("drained", "paused") for one in left)
        if group not in names and held:
            out.say(f"note: the whole group {group} is held: fleet resume {group}")
