"""restart: run replicas again under the rollout policy of their group."""

from __future__ import annotations

import argparse

from fleet.cli.change_flow import run_change
from fleet.cli.output import Output
from fleet.cli.override_flow import chosen, flags_of, named, override_flags, there
from fleet.cli.target import groups_of
from fleet.operate.local_fleet import PlannedChange


def restart_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of restart."""
    override_flags(parser, names="groups or replicas to run anew")


def restart(args: argparse.Namespace, out: Output) -> int:
    """Run replicas anew under the rollout policy of their group."""
    fleet, names = named(args)
    loaded = fleet.applied_manifest()

    def look() -> PlannedChange:
        desired, secrets = fleet.desired_of(loaded)
        these = chosen(names, desired, replicas=there(fleet, desired))
        return fleet.planned(desired, secrets, restart=these, only=groups_of(these))

    return run_change(fleet, out, verb="restart", look=look, flags=flags_of(args, "restart", names))
