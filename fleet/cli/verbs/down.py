"""down: drain and remove everything that a fleet owns."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fleet.cli.change_flow import DECLINED, finished, make_claim, owner_flags
from fleet.cli.cluster_target import in_cluster, ownership_flag, place_flags
from fleet.cli.output import Output
from fleet.cli.progress import Progress
from fleet.cli.signals import Signals
from fleet.cli.target import applied_or_told, duration, fleet_of, no_names, output_flag, target_flags, target_of
from fleet.core.desired import nothing
from fleet.core.planning import plan_text
from fleet.errors import Refused
from fleet.operate.apply.events import Report, WalkOptions
from fleet.operate.change import take_down
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.sync.by_hand import Claim, check


def down_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    place_flags(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask; needed without a terminal")
    parser.add_argument("--timeout", type=duration, metavar="TIME", help="longest wait for running tasks")
    parser.add_argument("--reason", metavar="TEXT", help="why; needed with --suspend")
    owner_flags(parser)
    ownership_flag(parser)
    output_flag(parser)


def down(args: argparse.Namespace, out: Output) -> int:
    """Take the fleet down. Its history stays, so that `fleet apply --fleet NAME` brings it back."""
    target = target_of(args)
    no_names(target)
    if (there := in_cluster(args, target)) is not None:
        from fleet.cli import cluster_flow

        return cluster_flow.down(there, args, out)
    fleet = fleet_of(target)
    claim = Claim(None, args.adopt, args.suspend or 0.0, args.reason or "")
    check(fleet, claim)
    if not args.yes and not _agreed(fleet, out):
        return DECLINED
    with fleet.lock():
        change = fleet.planned(nothing(fleet.name), prune=True)
        plan = change.plan
        if applied_or_told(fleet, out) is None and plan.is_empty and not change.observed.up:
            out.say(f"nothing to take down: fleet {fleet.name!r} was never applied here")
            finished(fleet, out, plan, Report((), 0.0, change.observed))
            return 0
        make_claim(fleet, out, claim)
        with Signals(out) as signals, Progress(out, plan) as progress:
            options = WalkOptions(args.timeout, interrupted=signals.number)
            report = take_down(fleet, on_event=progress.on_event, options=options)
    finished(fleet, out, replace(plan, steps=report.done), report)
    foreign = report.observed.foreign
    if foreign:
        out.say(f"supervisord stays, because it also runs programs that are not this fleet's: {', '.join(foreign)}")
    return 0


def _agreed(fleet: LocalFleet, out: Output) -> bool:
    if not out.can_ask():
        raise Refused(
            f"fleet {fleet.name!r} is not taken down: there is no terminal to ask on", hint="confirm with --yes"
        )
    plan = fleet.planned(nothing(fleet.name), prune=True).plan
    out.say(plan_text.text(plan).rstrip("\n"))
    if out.confirmed(f"Take fleet {fleet.name!r} down?"):
        return True
    out.say("nothing was done")
    return False
