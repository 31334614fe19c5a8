"""What restart, drain, pause and resume share: some groups or replicas of a fleet, and the manifest applied last."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace

from fleet.cli.change_flow import ChangeFlags, change_flags, run_change
from fleet.cli.output import Output
from fleet.cli.target import checked_names, fleet_of, output_flag, replicas_of, target_flags, target_of
from fleet.core.desired import Desired, group_of, is_replica
from fleet.core.observed import Observed, State
from fleet.core.plan import Action
from fleet.core.planning.steering import STOPS
from fleet.core.text.format import listed
from fleet.errors import Refused, UsageError
from fleet.operate.local_fleet import LocalFleet, PlannedChange
from fleet.state.audit import who
from fleet.state.overrides import Kind, Override, added


def override_flags(parser: argparse.ArgumentParser, *, names: str) -> None:
    """Flags of every verb that takes names, or --all; ``names``: what they are, for the help."""
    target_flags(parser, names=names)
    parser.add_argument("--all", action="store_true", help="every group")
    change_flags(parser)
    output_flag(parser)


def make_overrides(fleet: LocalFleet, names: Sequence[str], kind: Kind, args: argparse.Namespace, out: Output) -> int:
    """Make live exceptions for these names, and carry them out."""
    now = fleet.now()
    meant = STOPS if kind == "paused" else frozenset({Action.HOLD})
    until = now + args.lasting if args.lasting is not None else None

    def look() -> PlannedChange:
        desired = fleet.desired_as_applied()
        known = chosen(names, desired, groups_only=kind == "paused", replicas=there(fleet, desired))
        if kind == "drained":
            known = _that_can_drain(known, desired, refuse=bool(names))
        new = [Override(kind, name, now, who(), args.reason or "", until) for name in known]
        overrides = added(fleet.kept_overrides(), *new)
        desired = fleet.desired_as_applied(overrides=overrides)

        def write() -> None:
            fleet.keep_overrides(overrides)
            fleet.audit.write(*({"event": "override", "override": str(one)} for one in new))

        planned = fleet.steered(desired, only=known, actions=meant)
        if kind == "drained":
            _refuse_deaf(known, planned.observed)
        return replace(planned, before=write)

    return run_change(
        fleet, out, verb="pause" if kind == "paused" else "drain", look=look, flags=flags_of(args, kind, names)
    )


def _that_can_drain(names: Sequence[str], desired: Desired, *, refuse: bool) -> tuple[str, ...]:
    """Raise UsageError unless all are workers: a command cannot stop taking tasks and keep running."""
    others = [name for name in names if desired.groups[group_of(name)].spec.kind == "command"]
    if others and refuse:
        hint = f"`fleet pause {others[0].partition('.')[0]}` stops it, and `fleet resume` brings it back"
        raise UsageError(f"{others[0]} is not a worker and cannot be told to take no tasks", hint=hint)
    return tuple(name for name in names if name not in others)


def _refuse_deaf(names: Sequence[str], observed: Observed) -> None:
    """A worker of Celery's that keeps no record never looks whether it is held."""
    meant = [one for one in observed.replicas.values() if one.name in names or one.group in names]
    deaf = [one.name for one in meant if one.state is State.READY and not one.can_hold]
    if deaf:
        hint = f"`fleet restart {deaf[0]}` starts it with a record; where its log says that it keeps none, it cannot"
        raise Refused(f"{listed(deaf)} keeps no record and cannot be told to take no tasks", hint=hint)


def named(args: argparse.Namespace) -> tuple[LocalFleet, tuple[str, ...]]:
    """The fleet, and the names that were given; none with --all."""
    target = target_of(args)
    if bool(target.names) == bool(args.all):
        raise UsageError("name groups or replicas, or say --all", hint="for example `fleet restart thumbs reports.0`")
    fleet = fleet_of(target)
    refuse_down(fleet)
    return fleet, target.names


def refuse_down(fleet: LocalFleet) -> None:
    """What steers a fleet starts none. Raises Refused."""
    applied = fleet.applied()
    if applied is not None and (applied.down or not fleet.backend.observe().up):
        hint = f"`fleet apply` starts it; `fleet status --fleet {fleet.name}` shows what is left"
        raise Refused(f"fleet {fleet.name} is down", hint=hint)


def there(fleet: LocalFleet, desired: Desired) -> set[str]:
    """Replicas that may be named: those that are there, are to be, or have an exception of their own."""
    excepted = {one.target for one in fleet.kept_overrides() if is_replica(one.target)}
    return replicas_of(desired, fleet.backend.observe()) | excepted


def chosen(
    names: Sequence[str], desired: Desired, *, groups_only: bool = False, replicas: Collection[str] | None = None
) -> tuple[str, ...]:
    """The names, each checked; without any, every group that is not fleet's own. Raises UsageError with a guess."""
    if not names:
        return tuple(name for name, group in desired.groups.items() if not group.system)
    return checked_names(names, desired, groups_only=groups_only, replicas=replicas)


def flags_of(args: argparse.Namespace, what: str, names: Sequence[str]) -> ChangeFlags:
    """The flags, with a reason for the audit where no person gave one."""
    flags = ChangeFlags.of(args)
    return replace(flags, reason=flags.reason or f"{what} {', '.join(names) or 'everything'}")
