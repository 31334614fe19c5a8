"""wait: until a fleet, or some groups or replicas of it, are ready, idle or drained."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fleet import settings
from fleet.cli.live_view import looker
from fleet.cli.output import Output
from fleet.cli.signals import Signals
from fleet.cli.target import checked_names, duration, fleet_of, output_flag, replicas_of, target_flags, target_of
from fleet.core.desired import Desired
from fleet.core.status import GroupStatus, Status, WorkerStatus
from fleet.core.text.format import listed
from fleet.errors import Interrupted, NotReady
from fleet.operate.apply.events import WalkOptions
from fleet.operate.apply.walk import PAUSE_MAX_SECONDS

_SHOWN = 5


def wait_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of wait."""
    target_flags(parser, names="groups or replicas (default: the whole fleet)")
    parser.add_argument(
        "--for",
        dest="goal",
        choices=tuple(_GOALS),
        default="ready",
        help="ready: all work; idle: none runs a task; drained: none runs a task or takes one (default: ready)",
    )
    parser.add_argument(
        "--timeout", type=duration, metavar="TIME", help="longest wait (default: FLEET_READY_TIMEOUT_SECONDS)"
    )
    output_flag(parser)


def wait(args: argparse.Namespace, out: Output) -> int:
    """Exit 0 once it is so, 4 when it is not by the timeout."""
    target = target_of(args)
    fleet = fleet_of(target)
    applied = fleet.applied()
    desired = applied.desired if applied is not None else Desired(fleet.name)
    replicas = replicas_of(desired, fleet.backend.observe()) if target.names else None
    checked_names(target.names, desired, replicas=replicas)
    look, late_of = looker(fleet, target), _GOALS[args.goal]
    limit = settings.load().ready_timeout_seconds if args.timeout is None else args.timeout
    with Signals(out) as signals:
        options = WalkOptions(limit, interrupted=signals.number)
        began = options.now()
        while late := late_of(_chosen(look(), target.names)):
            if signum := options.interrupted():
                raise Interrupted(f"interrupted while waiting for {_named(late)}", signum=signum)
            if options.now() - began >= limit:
                hint = "`fleet status` shows what they do"
                raise NotReady(f"not {args.goal} within {limit:g} s: {_named(late)}", hint=hint)
            options.sleep(PAUSE_MAX_SECONDS)
        seconds = options.now() - began
    document: dict[str, Any] = {"fleet": fleet.name, "for": args.goal, "seconds": round(seconds, 3)}
    out.either(document, f"fleet {fleet.name}: {args.goal}")
    return 0


def _chosen(status: Status, names: Sequence[str]) -> Status:
    """The status of these groups and replicas only."""
    if not names:
        return status
    groups = {}
    for name, group in status.groups.items():
        if name in names:
            groups[name] = group
        elif part := _part(group, names):
            groups[name] = part
    return Status(status.fleet, status.revision, status.ready, status.up, groups)


def _part(group: GroupStatus, names: Sequence[str]) -> GroupStatus | None:
    """The named replicas as a group."""
    workers = tuple(worker for worker in group.workers if worker.name in names)
    missing = tuple(name for name in names if name.rpartition(".")[0] == group.name) if not workers else ()
    if not workers and not missing:
        return None
    ready = sum(worker.ready and not worker.drift for worker in workers)
    return GroupStatus(
        group.name, group.pool, len(workers) + len(missing), ready, group.desired_slots, workers, missing
    )


# --- who is late, by goal


def _not_ready(status: Status) -> list[str]:
    late = [
        name
        for group in status.groups.values()
        if not group.ready
        for name in (*group.missing, *(worker.name for worker in group.workers if not worker.ready or worker.drift))
    ]
    if late or (status.up and status.groups):
        return late
    return [f"the whole fleet ({'nothing runs' if status.up else 'it is down'})"]


def _working(status: Status) -> list[str]:
    return [worker.name for worker in _workers(status) if worker.busy]


def _not_drained(status: Status) -> list[str]:
    return [worker.name for worker in _workers(status) if worker.busy or (worker.pid and not worker.held)]


def _workers(status: Status) -> Iterable[WorkerStatus]:
    """Fleet's own programs run no tasks."""
    return (worker for group in status.groups.values() if not group.system for worker in group.workers)


_GOALS: dict[str, Callable[[Status], list[str]]] = {"ready": _not_ready, "idle": _working, "drained": _not_drained}


def _named(names: Sequence[str]) -> str:
    return listed(names, most=_SHOWN)
