"""apply, rollback, down: the whole fleet at once."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fleet.apply import Report, Terms
from fleet.change import take_down
from fleet.cli.conduct import DECLINED, Look, Manner, change_flags, conduct, finished, share
from fleet.cli.output import Output
from fleet.cli.progress import Progress
from fleet.cli.signals import Signals
from fleet.cli.target import (
    duration,
    no_names,
    output_flag,
    session_for,
    session_of,
    target_flags,
    target_of,
    wanted_of,
)
from fleet.cli.verbs.planning import check_fresh, saved, wanted_in
from fleet.core import plan_text
from fleet.core.expand import nothing
from fleet.errors import Refused, UsageError
from fleet.session import Session
from fleet.wanted import Wanted, from_revision


def apply_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of apply."""
    target_flags(parser)
    change_flags(parser)
    parser.add_argument("--prune", action="store_true", help="also remove groups that left the manifest")
    _max_destroy(parser)
    output_flag(parser)


def _max_destroy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-destroy", type=share, metavar="COUNT", help="refuse to remove more replicas than 3, or than 20%%"
    )


def apply(args: argparse.Namespace, out: Output) -> int:
    """Bring the fleet to its manifest, or do exactly a kept plan."""
    target = target_of(args)
    no_names(target)
    document = saved(target.manifests[0]) if len(target.manifests) == 1 else None
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


def rollback_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of rollback."""
    target_flags(parser)
    parser.add_argument("--to", type=int, metavar="N", help="the revision (default: the one before the newest)")
    change_flags(parser)
    _max_destroy(parser)
    output_flag(parser)


def rollback(args: argparse.Namespace, out: Output) -> int:
    """Apply an earlier revision. Groups that came after it go."""
    target = target_of(args)
    no_names(target)
    session = session_of(target)
    wanted = _earlier(session, args.to)

    def look() -> Look:
        standing = session.standing()
        aim = session.aim(wanted)
        groups = {*aim.desired.groups, *(standing.desired.groups if standing is not None else ())}
        return Look(session.outlook(aim.desired, prune=True, only=groups), aim.secrets, wanted)

    code = conduct(session, out, "rollback", look, Manner.of(args))
    if code == 0 and not args.dry_run and wanted.origin.sources:
        out.say(f"note: {', '.join(wanted.origin.sources)} still say what they said; the next apply goes by them")
    return code


def _earlier(session: Session, number: int | None) -> Wanted:
    if number is None:
        kept = session.history.numbers()
        if len(kept) < 2:
            raise UsageError(f"fleet {session.name!r} has no earlier revision", hint="see `fleet history`")
        number = kept[-2]
    return from_revision(session.history.get(number), message=f"rollback to revision {number}")


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
        outlook = session.outlook(nothing(session.name), prune=True)
        plan = outlook.plan
        if session.standing() is None and plan.is_empty and not outlook.observed.up:
            out.say(f"nothing to take down: fleet {session.name!r} was never applied here")
            finished(session, out, plan, Report((), 0.0, outlook.observed))
            return 0
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
