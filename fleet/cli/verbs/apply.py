"""apply: bring a fleet to its manifest, or do exactly a kept plan."""

from __future__ import annotations

import argparse

from fleet.cli.change_flow import Look, Manner, change_flags, conduct, destroy_flag
from fleet.cli.output import Output
from fleet.cli.saved_plan import check_fresh, read_saved, wanted_in
from fleet.cli.target import (
    no_names,
    output_flag,
    session_for,
    target_flags,
    target_of,
    wanted_of,
)


def apply_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of apply."""
    target_flags(parser)
    change_flags(parser)
    parser.add_argument("--prune", action="store_true", help="also remove groups that left the manifest")
    destroy_flag(parser)
    output_flag(parser)


def apply(args: argparse.Namespace, out: Output) -> int:
    """Bring the fleet to its manifest, or do exactly a kept plan."""
    target = target_of(args)
    no_names(target)
    document = read_saved(target.manifests[0]) if len(target.manifests) == 1 else None
    wanted = wanted_in(document, target.manifests[0]) if document is not None else wanted_of(target)
    prune = bool(document["prune"]) if document is not None else args.prune
    session = session_for(wanted)
    for warning in wanted.warnings:
        out.say(f"warning: {warning}")

    def look() -> Look:
        aim = session.aim(wanted)
        outlook = session.outlook(aim.desired, prune=prune)
        if document is not None:
            check_fresh(document, outlook.plan)
        return Look(outlook, aim.secrets, wanted)

    return conduct(session, out, "apply", look, Manner.of(args))
