"""restart: run replicas again under the rollout policy of their group."""

from __future__ import annotations

import argparse

from fleet.cli.change_flow import Look, conduct
from fleet.cli.output import Output
from fleet.cli.override_flow import chosen, manner_of, named, override_flags
from fleet.cli.target import groups_of


def restart_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of restart."""
    override_flags(parser, names="groups or replicas to run anew")


def restart(args: argparse.Namespace, out: Output) -> int:
    """Run replicas anew under the rollout policy of their group."""
    session, names = named(args)
    wanted = session.last_applied()

    def look() -> Look:
        aim = session.aim(wanted)
        these = chosen(names, aim.desired)
        return Look(session.outlook(aim.desired, restart=these, only=groups_of(these, aim.desired)), aim.secrets)

    return conduct(session, out, "restart", look, manner_of(args, "restart", names))
