"""rollback: an earlier revision, as an ordinary plan."""

from __future__ import annotations

import argparse

from fleet.cli.change_flow import Look, Manner, change_flags, conduct, destroy_flag
from fleet.cli.output import Output
from fleet.cli.target import (
    no_names,
    output_flag,
    session_of,
    target_flags,
    target_of,
)
from fleet.errors import UsageError
from fleet.session import Session
from fleet.wanted import Wanted, from_revision


def rollback_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of rollback."""
    target_flags(parser)
    parser.add_argument("--to", type=int, metavar="N", help="the revision (default: the one before the newest)")
    change_flags(parser)
    destroy_flag(parser)
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
