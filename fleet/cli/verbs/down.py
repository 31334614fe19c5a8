"""down: drain and remove everything that a fleet owns."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fleet.apply import Terms
from fleet.change import take_down
from fleet.cli.change_flow import DECLINED, finished
from fleet.cli.output import Output
from fleet.cli.progress import Progress
from fleet.cli.signals import Signals
from fleet.cli.target import (
    duration,
    no_names,
    output_flag,
    session_of,
    target_flags,
    target_of,
)
from fleet.core import plan_text
from fleet.core.expand import nothing
from fleet.errors import Refused
from fleet.session import Session


def down_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of down."""
    target_flags(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask; needed where nobody can answer")
    parser.add_argument("--timeout", type=duration, metavar="TIME", help="longest wait for what runs to finish")
    output_flag(parser)


def down(args: argparse.Namespace, out: Output) -> int:
    """Take the fleet down. Its history stays, so that `fleet apply --fleet NAME` brings it back."""
    target = target_of(args)
    no_names(target)
    session = session_of(target)
    if not args.yes and not _agreed(session, out):
        return DECLINED
    with session.lock():
        plan = session.outlook(nothing(session.name), prune=True).plan
        with Signals(out) as signals, Progress(out, plan) as progress:
            terms = Terms(args.timeout, interrupted=signals.number)
            report = take_down(session, tell=progress.tell, terms=terms)
    finished(session, out, replace(plan, steps=report.done), report)
    foreign = report.observed.foreign
    if foreign:
        out.say(f"supervisord stays, because it also runs what is not this fleet's: {', '.join(foreign)}")
    return 0


def _agreed(session: Session, out: Output) -> bool:
    if not out.can_ask():
        raise Refused(f"nobody can be asked whether to take fleet {session.name!r} down", hint="say so with --yes")
    plan = session.outlook(nothing(session.name), prune=True).plan
    out.say(plan_text.text(plan).rstrip("\n"))
    if out.confirmed(f"Take fleet {session.name!r} down?"):
        return True
    out.say("nothing was done")
    return False
