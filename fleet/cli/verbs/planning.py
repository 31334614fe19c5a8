"""plan: what apply would do."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleet.cli.output import Output
from fleet.cli.target import no_names, output_flag, session_for, target_flags, target_of, wanted_of
from fleet.core import budget, plan_text
from fleet.core.plan import Plan
from fleet.errors import FleetError, StalePlan, UsageError
from fleet.files import write_whole
from fleet.history import Origin
from fleet.secrets import keep_key
from fleet.session import Outlook
from fleet.wanted import Wanted, from_document

KIND = "FleetPlan"
FORMAT = 1
SUFFIX = ".json"
CHANGES = 2


def plan_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of plan."""
    target_flags(parser)
    parser.add_argument("--detailed-exitcode", action="store_true", help="exit 2 where there are changes")
    parser.add_argument(
        "--out", metavar="FILE.json", help="keep the plan; `fleet apply FILE.json` does exactly that or refuses"
    )
    parser.add_argument("--prune", action="store_true", help="also remove groups that left the manifest")
    parser.add_argument("-v", "--verbose", action="store_true", help="also list what is left alone")
    output_flag(parser)


def plan(args: argparse.Namespace, out: Output) -> int:
    """Show the plan, and keep it where that is asked."""
    target = target_of(args)
    no_names(target)
    if args.out and not args.out.endswith(SUFFIX):
        hint = f"write `--out {args.out}{SUFFIX}`: that is how `fleet apply` tells a kept plan from other words"
        raise UsageError(f"the name of a kept plan ends with {SUFFIX}, and {args.out!r} does not", hint=hint)
    wanted = wanted_of(target)
    session = session_for(wanted)
    aim = session.aim(wanted)
    outlook = session.outlook(aim.desired, prune=args.prune)
    out.either(plan_text.document(outlook.plan), plan_text.text(outlook.plan, verbose=args.verbose, colour=out.colour))
    for warning in wanted.warnings:
        out.say(f"warning: {warning}")
    budget.check(outlook.desired, outlook.plan, outlook.observed)
    if args.out:
        if aim.secrets:  # or the apply would see other fingerprints of the same values
            keep_key(session.places.key)
        write_whole(Path(args.out).absolute(), json.dumps(_document(wanted, outlook, prune=args.prune)))
        out.say(f"apply exactly this: fleet apply {args.out}")
    return CHANGES if args.detailed_exitcode and not outlook.plan.is_empty else 0


def _document(wanted: Wanted, outlook: Outlook, *, prune: bool) -> dict[str, Any]:
    return {
        "kind": KIND,
        "format": FORMAT,
        "madeAt": round(time.time(), 3),
        "prune": prune,
        "manifest": wanted.document,
        "origin": asdict(wanted.origin),
        "plan": plan_text.document(outlook.plan),
    }


def saved(path: str) -> Mapping[str, Any] | None:
    """The document of a kept plan; None where the file is something else."""
    if not path.endswith(SUFFIX):
        return None
    try:
        document = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return None
    if document.get("format") != FORMAT:
        raise FleetError(f"{path} was written by another version of fleet", hint="make the plan again")
    return document


def wanted_in(document: Mapping[str, Any], path: str) -> Wanted:
    """The manifest of a kept plan."""
    origin = document["origin"]
    came_from = Origin(origin["base"], tuple(origin["sources"]), dict(origin["git"]))
    return from_document(document["manifest"], origin=came_from, name=path)


def check_fresh(document: Mapping[str, Any], plan: Plan) -> None:
    """Raise StalePlan when planning now gives something else than what was kept."""
    now = plan_text.document(plan)
    kept = document["plan"]
    same = [[(step["action"], step["replica"]) for step in one["steps"]] for one in (kept, now)]
    if kept["fingerprint"] != now["fingerprint"] or same[0] != same[1]:
        message = f"fleet {plan.fleet!r} is not what it was when the plan was made"
        raise StalePlan(message, hint="look at `fleet plan` again, and keep it with --out")
