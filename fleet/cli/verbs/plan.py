"""plan: what apply would do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.foreseen import say_foreseen
from fleet.cli.output import Output
from fleet.cli.target import fleet_for, manifest_of, no_names, output_flag, target_flags, target_of
from fleet.core.planning import budget, plan_text
from fleet.errors import UsageError
from fleet.operate.lost_queues import warned

if TYPE_CHECKING:
    from fleet.inputs.manifest import LoadedManifest
    from fleet.operate.local_fleet import LocalFleet, PlannedChange

CHANGES = 2


def plan_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    place_flags(parser)
    parser.add_argument("--detailed-exitcode", action="store_true", help="exit 2 if there are changes")
    parser.add_argument(
        "--out", metavar="FILE.json", help="save the plan; `fleet apply FILE.json` does exactly that or refuses"
    )
    parser.add_argument("--prune", action="store_true", help="also remove groups that are no longer in the manifest")
    parser.add_argument("-v", "--verbose", action="store_true", help="also list replicas that do not change")
    parser.add_argument("--base", metavar="REV", help="from this git revision of the manifest, not from what runs")
    parser.add_argument("--head", metavar="REV", default="HEAD", help="to this one, merged (default: HEAD)")
    output_flag(parser, "markdown")


def plan(args: argparse.Namespace, out: Output) -> int:
    """Show the plan; with --out, save it."""
    target = target_of(args)
    no_names(target)
    if args.base:
        from fleet.cli.merge_preview import merge_preview

        return merge_preview(target.sources(), args, out)
    if args.output == "markdown":
        raise UsageError("-o markdown is for --base", hint="`fleet diff -o markdown` compares with what runs")
    if args.out:
        _check_name(args.out)
    if (there := in_cluster(args, target)) is not None:
        from fleet.cli import cluster_flow

        return cluster_flow.plan(there, args, out)
    loaded = manifest_of(target)
    fleet = fleet_for(loaded)
    change = warned(fleet.planned(*fleet.desired_of(loaded), manifest=loaded, prune=args.prune))
    out.either(plan_text.document(change.plan), plan_text.text(change.plan, verbose=args.verbose, colour=out.colour))
    for warning in loaded.warnings:
        out.say(f"warning: {warning}")
    say_foreseen(change, out)
    budget.check(change.desired, change.plan, change.observed)
    if args.out:
        _save(args.out, fleet, loaded, change, prune=args.prune)
        out.say(f"apply exactly this: fleet apply {args.out}")
    return CHANGES if args.detailed_exitcode and not change.plan.is_empty else 0


def _check_name(file: str) -> None:
    from fleet.cli.saved_plan import SUFFIX

    if not file.endswith(SUFFIX):
        hint = f"write `--out {file}{SUFFIX}`: that is how `fleet apply` recognises a saved plan"
        raise UsageError(f"the name of a saved plan ends with {SUFFIX}, and {file!r} does not", hint=hint)


def _save(file: str, fleet: LocalFleet, loaded: LoadedManifest, change: PlannedChange, *, prune: bool) -> None:
    from fleet.cli.saved_plan import saved_document
    from fleet.inputs.secrets import fleet_key, keep_key
    from fleet.state.files import write_whole

    keep_key(fleet.places.key)  # without it the apply could not tell that the file is the one written here
    saved = saved_document(loaded, change, prune=prune, key=fleet_key(fleet.places.key))
    write_whole(Path(file).absolute(), json.dumps(saved))
