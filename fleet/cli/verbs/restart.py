"""restart: restart replicas under the rollout policy of their group."""

from __future__ import annotations

import argparse

from fleet.cli.change_flow import run_change
from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.output import Output
from fleet.cli.override_flow import chosen, flags_of, named, override_flags
from fleet.cli.override_flow import there as there_of
from fleet.cli.target import target_of
from fleet.core.plan import Action
from fleet.operate.local_fleet import PlannedChange

AGAIN = frozenset({Action.RESTART, Action.START, Action.HOLD})
"""What is held is held again once it has started."""


def restart_flags(parser: argparse.ArgumentParser) -> None:
    override_flags(parser, names="groups or replicas to restart")
    place_flags(parser)


def restart(args: argparse.Namespace, out: Output) -> int:
    """Restart replicas under the rollout policy of their group."""
    if (there := in_cluster(args, target_of(args))) is not None:
        from fleet.cli import cluster_flow

        return cluster_flow.restart(there, args, out)
    fleet, names = named(args)

    def look() -> PlannedChange:
        desired = fleet.desired_as_applied()
        these = chosen(names, desired, replicas=there_of(fleet, desired))
        return fleet.steered(desired, only=these, actions=AGAIN, restart=these)

    return run_change(fleet, out, verb="restart", look=look, flags=flags_of(args, "restart", names))
