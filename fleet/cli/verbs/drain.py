"""drain: groups or replicas stop taking tasks and keep running."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.output import Output
from fleet.cli.override_flow import make_overrides, named, override_flags
from fleet.cli.signals import Signals
from fleet.cli.target import duration, target_of
from fleet.errors import Interrupted, NotReady
from fleet.operate.apply.events import WalkOptions
from fleet.operate.apply.walk import PAUSE_MAX_SECONDS
from fleet.operate.local_fleet import LocalFleet


def drain_flags(parser: argparse.ArgumentParser) -> None:
    override_flags(parser, names="groups or replicas that stop taking tasks")
    place_flags(parser)
    parser.add_argument(
        "--for", dest="lasting", type=duration, metavar="TIME", help="how long (default: until `fleet resume`)"
    )
    parser.add_argument("--wait", action="store_true", help="also wait until their running tasks are done")


def drain(args: argparse.Namespace, out: Output) -> int:
    """Hold replicas: they finish what they run and take nothing new, through restarts too."""
    if (there := in_cluster(args, target_of(args))) is not None:
        from fleet.cli import cluster_flow

        return cluster_flow.drain(there, args, out)
    fleet, names = named(args)
    code = make_overrides(fleet, names, "drained", args, out)
    if code == 0 and args.wait and not args.dry_run:
        _wait_idle(fleet, names, args.timeout, out)
    return code


def _wait_idle(fleet: LocalFleet, names: Sequence[str], timeout_seconds: float | None, out: Output) -> None:
    """Until no named replica runs a task."""
    with Signals(out) as signals:
        options = WalkOptions(timeout_seconds, interrupted=signals.number)
        began = options.now()
        while True:
            replicas = fleet.backend.observe().replicas.values()
            busy = [one.name for one in replicas if one.busy and (not names or one.name in names or one.group in names)]
            if not busy:
                return
            if signum := options.interrupted():
                raise Interrupted(f"interrupted while {', '.join(busy[:5])} worked", signum=signum)
            if timeout_seconds is not None and options.now() - began > timeout_seconds:
                raise NotReady(f"still working after {timeout_seconds:g} s: {', '.join(busy[:5])}")
            options.sleep(PAUSE_MAX_SECONDS)
