"""resume: undo drain, pause and scale --live."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fleet.cli.change_flow import Look, conduct
from fleet.cli.output import Output
from fleet.cli.override_flow import chosen, manner_of, named, override_flags
from fleet.cli.target import groups_of
from fleet.core.desired import Desired
from fleet.core.selection import sharing
from fleet.overrides import Override, ended


def resume_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of resume."""
    override_flags(parser, names="groups or replicas that go back to what the manifest says")


def resume(args: argparse.Namespace, out: Output) -> int:
    """End live exceptions."""
    session, names = named(args)
    wanted = session.last_applied()

    def look() -> Look:
        before = session.overrides()
        known = chosen(names, session.aim(wanted, overrides=()).desired)
        left = ended(before, known)
        aim = session.aim(wanted, overrides=left)
        _mention(known, left, aim.desired, out)

        def write() -> None:
            session.keep_overrides(left)
            gone = [one for one in before if one not in left]
            session.audit.write(*({"event": "override.ended", "override": str(one)} for one in gone))

        only = groups_of(known, aim.desired) | sharing(aim.desired)
        return Look(session.outlook(aim.desired, only=only), aim.secrets, before=write)

    return conduct(session, out, "resume", look, manner_of(args, "resume", names))


def _mention(names: Sequence[str], left: Sequence[Override], desired: Desired, out: Output) -> None:
    """Why something stays as it is although it was resumed."""
    for group in sorted(groups_of(names, desired)):
        if desired.groups[group].paused and not any(one.target == group and one.kind == "paused" for one in left):
            out.say(f"note: {group} is paused in the manifest: change `paused` there")
        held = any(one.target == group and one.kind in ("drained", "paused") for one in left)
        if group not in names and held:
            out.say(f"note: the whole group {group} is held: fleet resume {group}")
