"""Moves one group: one effect after the other, each written down before it, so that it may end anywhere.

What is kept always allows the cluster at least as much as it has, and this host at most what is left of the budget:
the host notes that pods come before they do, and that they went after they did. Run again, a step first makes true
what was noted, and then goes on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleet.core.balance.divide import shape
from fleet.core.migration.order import Move, arrived, at, begun, change_text, planned, turned
from fleet.core.migration.positions import Position, next_position
from fleet.core.migration.state import CLUSTER, HOST, Migration, Side
from fleet.core.text.format import counted
from fleet.errors import FleetError, Interrupted, Refused, RolloutFailed
from fleet.operate.migrate.effects import Effects
from fleet.operate.migrate.sides import Sides


def chosen(sides: Sides, *, to: Side, group: str = "") -> Move | None:
    """The move that a step makes: of the group that is named, else the next one; None where none is left.

    Raises Refused where it cannot be made.
    """
    migration = sides.migration()
    facts = sides.facts(migration, to=to)
    plan = planned(facts, migration, to=to, budget=sides.budget, named={group} if group else ())
    if not plan.moves:
        return None
    move = plan.moves[0]
    if move.refused:
        hint = "`fleet migrate plan` shows all groups; a group may be named: `fleet migrate step GROUP`"
        raise Refused(f"{move.group} is not moved: {move.refused}", hint=hint)
    return move


def carry_out_move(move: Move, effects: Effects) -> None:
    """Move a group to its end. Raises RolloutFailed, NotReady, Refused or Interrupted, which say what serves then."""
    try:
        (_to_cluster if move.to == CLUSTER else _to_host)(move, effects)
    except Interrupted as error:
        error.args = (f"{error.message}\n{_failed(move, effects, error)}",)
        raise
    except FleetError as error:
        if move.to == CLUSTER and move.group not in effects.kept().groups:
            raise  # nothing was begun
        if move.to == CLUSTER and _runs_nowhere(move, effects):
            raise _taken_back(move, effects, error) from error
        raise _told(error, _failed(move, effects, error)) from error
    _audit(move, effects, "done", _where(move, effects))
    finish(effects)


def finish(effects: Effects) -> None:
    """End the migration, where every group is on one side. Does nothing twice."""
    migration = effects.kept()
    if not migration.groups:
        if effects.told() is not None:
            effects.there(migration)
            effects.forget_there()
        effects.forget()
        return
    arrived_there = {name for name, state in migration.groups.items() if not state.to}
    if effects.groups() - arrived_there or migration.on_the_way():
        told = effects.told()
        if told is None or any(told.groups.get(name) != migration.groups[name] for name in arrived_there):
            effects.tell(migration)
            effects.there(migration)
        return
    if not migration.is_complete:
        migration = replace(migration, is_complete=True)
        effects.keep(migration)
    if effects.told() is not None:
        effects.there(None)
        effects.forget_there()


# --- to the cluster


def _to_cluster(move: Move, effects: Effects) -> None:
    name, size = move.group, move.size
    migration = effects.kept()
    kept = migration.groups.get(name)
    state = begun(size) if kept is None else turned(kept, size, to=CLUSTER)
    effects.check_there(migration.with_group(name, at(state, Position(size.pods, 0))))
    _audit(move, effects, "began", _where(move, effects))
    migration = migration.with_group(name, state)
    effects.keep(migration)
    if kept is None:  # it gives the cluster nothing yet, but every apply there must know
        effects.tell(migration)
    effects.here(name)
    if kept is not None:
        effects.tell(migration)
    if state.pods:
        effects.there(migration, name, most=state.pods)
    now = Position(state.pods, state.here)
    while (following := next_position(now, size, to=CLUSTER, room=move.room)) is not None:
        _say(effects, move, now, following)
        migration = migration.with_group(name, at(migration.groups[name], following))
        effects.keep(migration)
        effects.here(name)  # before pods come, too: other groups may have borrowed their slots
        if following.pods != now.pods:
            effects.tell(migration)
            effects.there(migration, name, most=following.pods)
        now = following
    migration = migration.with_group(name, arrived(size))
    effects.keep(migration)
    effects.here(name)
    effects.tell(migration)
    effects.there(migration, name)


# --- back to this host


def _to_host(move: Move, effects: Effects) -> None:
    name, size = move.group, move.size
    _audit(move, effects, "began", _where(move, effects))
    migration = _opened(effects.kept(), move, effects)
    now = Position(migration.groups[name].pods, migration.groups[name].here)
    effects.here(name)
    while (following := next_position(now, size, to=HOST, room=move.room)) is not None:
        _say(effects, move, now, following)
        after = migration.with_group(name, at(migration.groups[name], following))
        if following.pods != now.pods:
            effects.tell(after)
            effects.there(after, name, most=following.pods, ready=False)
            effects.keep(after)
        else:
            effects.keep(after)
            effects.here(name)
        migration, now = after, following
    migration = migration.with_group(name, None)
    effects.tell(migration)
    effects.there(migration, name, most=0, ready=False)
    effects.keep(migration)
    effects.here(name)


def _opened(migration: Migration, move: Move, effects: Effects) -> Migration:
    """With the group on its way back; a group that a scaler moves has a fixed number of pods from here on."""
    name, size = move.group, move.size
    state = migration.groups[name]
    leaving = turned(state, size, to=HOST)
    migration = replace(migration, is_complete=False)
    # The host notes fewer pods and a smaller part only once the cluster has no more than that.
    most = replace(leaving, part=max(leaving.part, state.part if not state.to else 0))
    effects.keep(migration.with_group(name, most))
    live = effects.live_pods(name)
    fewer = state.pods if live is None else min(state.pods, live)
    migration = migration.with_group(name, replace(leaving, pods=fewer))
    effects.tell(migration)
    effects.there(migration, name, most=fewer, ready=False)
    effects.keep(migration)
    return migration


# --- what is said


def _audit(move: Move, effects: Effects, event: str, reason: str, **more: Any) -> None:
    effects.audit(event=f"migration.{event}", step=f"move {move.group}", to=move.to, reason=reason, **more)


def _where(move: Move, effects: Effects) -> str:
    why = f": {effects.flags.reason}" if effects.flags.reason else ""
    return f"{'to the cluster' if move.to == CLUSTER else 'back to this host'}{why}"


def _say(effects: Effects, move: Move, now: Position, following: Position) -> None:
    text = change_text(now, following, move.size)
    effects.flags.say(f"{move.group}: {text}")
    _audit(move, effects, "step", text, pods=following.pods, slots=following.here)


def _failed(move: Move, effects: Effects, error: FleetError) -> str:
    """What serves now, in words; also for the audit."""
    state = effects.kept().groups.get(move.group)
    pods, here = (state.pods, state.here) if state is not None else (0, move.size.here)
    replicas = counted(len(shape(here, move.size.full)), "replica")
    said = f"{move.group} stays on both sides: {replicas} on this host, {counted(pods, 'pod')} in the cluster"
    if not pods or not here:
        alone = f"{replicas} on this host" if here else f"{counted(pods, 'pod')} in the cluster"
        said = f"{move.group} stays on one side: {alone}" if pods or here else f"{move.group} runs on neither side"
    _audit(move, effects, "failed", error.message, serves=said)
    return said


def _told(error: FleetError, said: str) -> FleetError:
    """The error with what serves now."""
    error.args = (f"{error.message}\n{said}",)
    more = "then run the same command again, or `fleet migrate step --back` with the group's name undoes it"
    error.hint = f"{error.hint}; {more}" if error.hint else more
    return error


def _runs_nowhere(move: Move, effects: Effects) -> bool:
    """Whether a group that runs on one side at a time was stopped here, and does not run there."""
    state = effects.kept().groups.get(move.group)
    return bool(move.size.stops_first) and state is not None and not state.here


def _taken_back(move: Move, effects: Effects, error: FleetError) -> RolloutFailed:
    """A group that runs on one side at a time would run nowhere: it goes back to where it was."""
    _failed(move, effects, error)
    effects.flags.say(f"{error.message}\n{move.group} goes back to this host")
    hint = f"{error.hint}; mend the cause and run the same command again" if error.hint else "mend the cause"
    try:
        _to_host(replace(move, to=HOST), effects)
    except Interrupted:
        raise
    except FleetError as second:
        text = f"{error.message}\nand the way back failed too: {second.message}\n{move.group} runs on neither side"
        return RolloutFailed(text, hint=second.hint)
    return RolloutFailed(f"{error.message}\n{move.group} runs on this host again", hint=hint, rolled_back=True)
