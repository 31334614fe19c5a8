"""migrate: move the groups of a fleet from this host to a cluster and back, one by one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fleet.cli.cluster_target import ownership_flag
from fleet.cli.output import Cell, Output, table
from fleet.cli.progress import Progress
from fleet.cli.signals import Signals
from fleet.cli.target import (
    Target,
    action_argument,
    duration,
    fleet_for,
    fleet_of,
    output_flag,
    target_flags,
    target_of,
)
from fleet.core.text.format import listed
from fleet.core.text.suggest import did_you_mean
from fleet.errors import UsageError
from fleet.inputs import machine
from fleet.operate.local_fleet import LocalFleet, PlannedChange

if TYPE_CHECKING:
    from fleet.backends.kubernetes.client import Place
    from fleet.core.migration.order import Move
    from fleet.core.migration.state import Side
    from fleet.inputs.manifest import LoadedManifest
    from fleet.operate.cluster.cluster_fleet import ClusterFleet
    from fleet.operate.migrate.sides import Sides
    from fleet.operate.migrate.whereabouts import Seen

ACTIONS = {
    "plan": "which groups move in which order, and what each step starts and stops; changes nothing",
    "step": "move the next group, or the one that is named; run again, it goes on where it was cut short",
    "status": "which side each group is on, and what runs there",
}
DECLINED = 1


def migrate_flags(parser: argparse.ArgumentParser) -> None:
    action_argument(parser, ACTIONS)
    target_flags(parser, names="the one group to move; the manifest is the cluster's, as it was applied there if none")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: spec.kubernetes.context)")
    parser.add_argument("--namespace", metavar="NAME", help="in the cluster (default: spec.kubernetes.namespace)")
    parser.add_argument("--back", action="store_true", help="from the cluster to this host")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="step: print what it would do and do nothing")
    parser.add_argument("--timeout", type=duration, metavar="TIME", help="longest wait of each part of a step")
    parser.add_argument("--reason", metavar="TEXT", help="why, for the audit log")
    ownership_flag(parser)
    output_flag(parser)


def migrate(args: argparse.Namespace, out: Output) -> int:
    """One of the actions."""
    target = target_of(args)
    if len(target.names) > 1:
        raise UsageError(f"one group moves at a time, not {len(target.names)}", hint="name one, or none for the next")
    if args.action == "status":
        return _status(target, args, out)
    sides = _sides(target, args)
    sides.refuse_second_home()
    for name in target.names:
        if name not in (groups := sides.host_manifest.spec.groups):
            hint = did_you_mean(name, groups) or "there are none"
            raise UsageError(f"there is no group {name!r} in fleet {sides.local.name!r}", hint=hint)
    return (_plan if args.action == "plan" else _step)(sides, target, args, out)


def _to(args: argparse.Namespace) -> Side:
    return "host" if args.back else "cluster"


# --- which fleet, which cluster


def _sides(target: Target, args: argparse.Namespace) -> Sides:
    from fleet.inputs.manifest import from_files, from_revision
    from fleet.operate.migrate.sides import Sides

    sources = target.sources()
    loaded = from_files(sources) if sources else None
    local = fleet_for(loaded) if loaded is not None else fleet_of(target)
    cluster = _cluster(local, _place(local, loaded, args))
    if loaded is None:
        latest = cluster.history.latest()
        if latest is None:
            hint = "name the manifest that the cluster gets, with its overlay"
            raise UsageError(f"fleet {local.name!r} was never applied in {cluster.place}", hint=hint)
        loaded = from_revision(latest)
    return Sides(local, cluster, loaded)


def _cluster(local: LocalFleet, place: Place) -> ClusterFleet:
    from fleet.operate.cluster.cluster_fleet import ClusterFleet

    return ClusterFleet(local.name, place, timeout_seconds=local.settings.rpc_timeout_seconds)


def _place(local: LocalFleet, loaded: LoadedManifest | None, args: argparse.Namespace) -> Place:
    """As the flags say, else the manifest, else as the migration began."""
    from fleet.backends.kubernetes.client import Place

    said = loaded.manifest.spec.kubernetes if loaded is not None else None
    begun = local.migration()
    found = []
    for field in ("context", "namespace"):
        value = getattr(args, field) or getattr(said, field, None) or getattr(begun, field, None)
        if not value:
            hint = f"say --{field} NAME, or write spec.kubernetes.{field}; the kubeconfig's current one is never taken"
            raise UsageError(f"which {field} of the cluster?", hint=hint)
        found.append(str(value))
    return Place(*found)


# --- plan


def _plan(sides: Sides, target: Target, args: argparse.Namespace, out: Output) -> int:
    from fleet.core.migration import order

    migration = sides.migration()
    named = set(target.names)
    facts = sides.facts(migration, to=_to(args))
    made = order.planned(facts, migration, to=_to(args), budget=sides.budget, named=named)
    out.either(order.document(made), order.text(made))
    _say_notes(sides, target.names[0] if target.names else "", out)
    return 0


def _say_notes(sides: Sides, group: str, out: Output) -> None:
    for note in sides.notes():
        out.say(f"note: {note}")
    if also := sides.also_changed(group):
        out.say(f"note: this manifest also changes {listed(also)} in the cluster, and a step does that too")


# --- step


def _step(sides: Sides, target: Target, args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.migrate import step

    group = target.names[0] if target.names else ""
    move = step.chosen(sides, to=_to(args), group=group)
    _say_notes(sides, move.group if move is not None else "", out)
    if args.dry_run:
        return _shown(move, sides, out)
    if out.can_ask() and not args.yes and move is not None:
        _show(move, out)
        if not out.confirmed("Do this?"):
            out.say("nothing was done")
            return DECLINED
    lock = sides.cluster.lock("fleet migrate step")
    with sides.local.lock("fleet migrate step"), lock, Signals(out) as signals:
        sides.refuse_second_home()
        found = step.chosen(sides, to=_to(args), group=group)
        effects = _effects(sides, lock, args, out, signals)
        if found is None:
            step.finish(effects)
            return _nothing_left(sides, group, args, out)
        if found != move and move is not None and out.can_ask() and not args.yes:
            out.say("the fleet has changed meanwhile; the step is now:")
            _show(found, out)
            if not out.confirmed("Do this?"):
                out.say("nothing was done")
                return DECLINED
        if not out.can_ask() or args.yes:
            _show(found, out)
        step.carry_out_move(found, effects)
    return _done(found, sides, out)


def _effects(sides: Sides, lock: Any, args: argparse.Namespace, out: Output, signals: Signals) -> Any:
    from fleet.operate.cluster import carry_out
    from fleet.operate.migrate.effects import Effects

    flags = carry_out.Flags(
        say=out.say,
        timeout_seconds=args.timeout,
        force_ownership=args.force_ownership,
        reason=args.reason or "",
        interrupted=signals.number,
    )
    keeps_lease = _Renewing(lock.renew, signals.number)
    walk = _Walk(sides.local, args, out, keeps_lease)
    return Effects(sides, lock, flags, walk)


@dataclass(frozen=True, slots=True)
class _Renewing:
    """Asked again and again while this host works: keeps the lock in the cluster meanwhile."""

    renew: Callable[[], None]
    number: Callable[[], int]

    def __call__(self) -> int:
        from contextlib import suppress

        from fleet.errors import FleetError

        with suppress(FleetError):  # the next effect in the cluster says so
            self.renew()
        return self.number()


@dataclass(frozen=True, slots=True)
class _Walk:
    """Carries out a change of this host, with its progress."""

    fleet: LocalFleet
    args: argparse.Namespace
    out: Output
    interrupted: Callable[[], int]

    def __call__(self, change: PlannedChange) -> None:
        from fleet.operate.apply.events import STARTS_PER_CORE, WalkOptions
        from fleet.operate.change import carry_out

        patience = self.args.timeout
        if patience is None:
            patience = max(self.fleet.settings.ready_timeout_seconds, change.plan.worst_case_seconds + 60.0)
        with Progress(self.out, change.plan) as progress:
            options = WalkOptions(
                patience, starts_at_once=STARTS_PER_CORE * machine.cpus(), interrupted=self.interrupted
            )
            reason = self.args.reason or ""
            carry_out(self.fleet, change, verb="migrate", reason=reason, on_event=progress.on_event, options=options)


def _shown(move: Move | None, sides: Sides, out: Output) -> int:
    from fleet.core.migration import order

    migration = sides.migration()
    to = move.to if move is not None else "cluster"
    made = order.MigrationPlan(migration.fleet, migration.place, to, sides.budget, (move,) if move is not None else ())
    out.either(order.document(made), order.text(made))
    return 0


def _show(move: Move, out: Output) -> None:
    from fleet.core.migration.order import lines_of

    text = "\n".join([f"{move.group}:", *(f"  {line}" for line in lines_of(move))])
    if out.is_json:
        out.say(text)
    else:
        out.facts(text + "\n")


def _nothing_left(sides: Sides, group: str, args: argparse.Namespace, out: Output) -> int:
    where = "on this host" if args.back else f"in {sides.cluster.place}"
    if out.is_json:
        out.document({"fleet": sides.local.name, "group": group or None, "to": _to(args), "outcome": "nothing left"})
    elif group:
        out.say(f"{group} lives {where} already")
    else:
        left = sorted(sides.migration().groups) if args.back else []
        but = f"; {listed(left)}: in the cluster, and not on this host: apply it here first" if left else ""
        out.say(f"fleet {sides.local.name}: no group is left to move, all that this host has live {where}{but}")
    return 0


def _done(move: Move, sides: Sides, out: Output) -> int:
    migration = sides.local.migration()
    complete = migration is None or migration.is_complete
    if out.is_json:
        document = {"fleet": sides.local.name, "group": move.group, "to": move.to, "outcome": "done"}
        out.document({**document, "complete": complete})
        return 0
    where = "on this host" if move.to == "host" else f"in {sides.cluster.place}"
    out.say(f"{move.group} lives {where}")
    if complete:
        rest = f"; `fleet down --fleet {sides.local.name}` ends what is left here" if move.to == "cluster" else ""
        out.say(f"every group of fleet {sides.local.name} lives {where}{rest}")
    return 0


# --- status


def _status(target: Target, args: argparse.Namespace, out: Output) -> int:
    from fleet.backends.kubernetes.client import Place
    from fleet.inputs.manifest import from_files
    from fleet.operate.migrate.whereabouts import look

    sources = target.sources()
    local = fleet_for(from_files(sources)) if sources else fleet_of(replace(target, names=()))
    begun = local.migration()
    place = None
    if begun is not None:
        place = Place(args.context or begun.context, args.namespace or begun.namespace)
    seen = look(local, _cluster(local, place) if place is not None else None)
    out.either(_document(seen), _text(seen, out))
    return 0


def _document(seen: Seen) -> dict[str, Any]:
    migration = seen.migration
    return {
        "fleet": seen.fleet,
        "place": None if migration is None else {"context": migration.context, "namespace": migration.namespace},
        "host": None if migration is None else migration.host,
        "complete": migration is not None and migration.is_complete,
        "budget": seen.budget,
        "groups": {
            one.group: {
                "lives": one.lives,
                "replicas": {"there": one.replicas, "ready": one.ready},
                "pods": None if one.pods is None else {"desired": one.pods, "ready": one.pods_ready},
                "slotsHere": one.slots_here,
                "slotsThere": one.slots_there,
            }
            for one in seen.groups
        },
        "note": seen.note,
    }


def _text(seen: Seen, out: Output) -> str:
    migration = seen.migration
    if migration is None:
        return f"fleet {seen.fleet}: no group was moved, all of them live on this host"
    state = "every group has moved" if migration.is_complete else f"{len(seen.groups)} groups"
    head = f"fleet {seen.fleet}, host {migration.host} and {migration.place}: {state}"
    rows = [
        [
            Cell(one.group),
            Cell(one.lives),
            Cell(f"{one.ready}/{one.replicas}", right=True),
            Cell("?" if one.pods is None else f"{one.pods_ready}/{one.pods}", right=True),
            Cell(str(one.slots_here), right=True),
            Cell(str(one.slots_there), right=True),
        ]
        for one in seen.groups
    ]
    shown = table(("GROUP", "LIVES", "REPLICAS", "PODS", "SLOTS HERE", "SLOTS THERE"), rows, colour=out.colour)
    here, there = sum(one.slots_here for one in seen.groups), sum(one.slots_there for one in seen.groups)
    limit = f" of {seen.budget}" if seen.budget is not None else ""
    lines = [head, "", shown, f"slots: {here} here + {there} in the cluster = {here + there}{limit}"]
    return "\n".join([*lines, *([seen.note] if seen.note else [])])
