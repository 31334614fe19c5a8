"""The plan of a migration: which group is next, what its steps start and stop, and whether both sides fit. PURE."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.core.balance.divide import shape
from fleet.core.migration.positions import Position, Size, least_room, path, slots
from fleet.core.migration.state import CLUSTER, HOST, GroupState, Migration, Side
from fleet.core.text.format import counted


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What a plan needs to know of a group. after: groups that must be moved before it, on the way to the cluster."""

    name: str
    size: Size
    after: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """One group's way. ``positions``: from where it is to its end.  room: slots for both sides (None: no limit).

    refused: why it cannot be moved now.
    """

    group: str
    size: Size
    to: Side
    positions: tuple[Position, ...] = ()
    room: int | None = None
    refused: str = ""

    @property
    def interrupts(self) -> bool:
        """Whether nothing of the group serves for a moment."""
        return any(not one.pods and not one.here for one in self.positions[1:-1])


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """The moves that are left, in order. budget: ``spec.concurrency``."""

    fleet: str
    place: str
    to: Side
    budget: int | None
    moves: tuple[Move, ...]


def planned(
    facts: Sequence[GroupFacts], migration: Migration, *, to: Side, budget: int | None, named: Collection[str] = ()
) -> MigrationPlan:
    """All moves that are left, one after another; ``named``: only these, in order."""
    known = {one.name: one for one in facts}
    state, moves = migration, []
    for name in _in_order(facts, state, to=to):
        if named and name not in named:
            continue
        move = move_of(known[name], facts, state, to=to, budget=budget)
        moves.append(move)
        if not move.refused:
            state = state.with_group(name, arrived(known[name].size) if to == CLUSTER else None)
    return MigrationPlan(migration.fleet, migration.place, to, budget, tuple(moves))


def move_of(
    one: GroupFacts, facts: Sequence[GroupFacts], migration: Migration, *, to: Side, budget: int | None
) -> Move:
    """The way of one group from where it is now."""
    size, room = one.size, None if budget is None else budget - _of_others(one, facts, migration)
    refused = one.refused or _too_early(one, facts, migration, to=to)
    needs = least_room(size, to=to)
    if not refused and room is not None and needs > room:
        where = "in the cluster" if to == CLUSTER else "on the host"
        refused = f"it takes {counted(needs, 'slot')} {where}, and the other groups leave {room} of {budget}"
    if refused:
        return Move(one.name, size, to, room=room, refused=refused)
    start = position_of(one, migration)
    return Move(one.name, size, to, tuple(path(start, size, to=to, room=room)), room)


def position_of(one: GroupFacts, migration: Migration) -> Position:
    """Where a group is now."""
    state = migration.groups.get(one.name)
    return Position(0, one.size.here) if state is None else Position(state.pods, state.here)


def begun(size: Size) -> GroupState:
    """A group that is still whole on the host and is about to move."""
    return GroupState(0, size.unit, size.concurrency, size.here, size.part_here, size.counts, CLUSTER)


def arrived(size: Size) -> GroupState:
    """A group that lives in the cluster."""
    part = least_room(size, to=CLUSTER)
    return GroupState(size.pods, size.unit, size.concurrency, 0, part, size.counts)


def turned(state: GroupState, size: Size, *, to: Side) -> GroupState:
    """A group on its way to a side, from wherever it is. The others keep what they had while it was on the host."""
    return replace(state, to=to, unit=size.unit, concurrency=size.concurrency, part=size.part_here)


def at(state: GroupState, position: Position) -> GroupState:
    """The group one step further."""
    return replace(state, pods=position.pods, here=position.here)


def _of_others(one: GroupFacts, facts: Sequence[GroupFacts], migration: Migration) -> int:
    """Slots that belong to the other groups, whichever side they are on."""
    others = [other for other in facts if other.name != one.name]
    known = {other.name for other in facts}
    forgotten = sum(state.there for name, state in migration.groups.items() if name not in known)
    return forgotten + sum(_part(other, migration.groups.get(other.name)) for other in others)


def _part(one: GroupFacts, state: GroupState | None) -> int:
    return one.size.part_here if state is None else state.there + state.taken_here


def _too_early(one: GroupFacts, facts: Sequence[GroupFacts], migration: Migration, *, to: Side) -> str:
    """Pods wait for their Jobs, so a job arrives before the groups that wait for it, and leaves after them."""
    if to == CLUSTER:
        missing = [name for name in one.after if not _lives_there(name, migration)]
        return f"its pods wait for {missing[0]}, which is on the host: move that one first" if missing else ""
    waiting = [other.name for other in facts if one.name in other.after and other.name in migration.groups]
    return f"pods of {waiting[0]} wait for it: move that one first" if waiting else ""


def _lives_there(name: str, migration: Migration) -> bool:
    state = migration.groups.get(name)
    return state is not None and not state.to


def _in_order(facts: Sequence[GroupFacts], migration: Migration, *, to: Side) -> list[str]:
    """What is on its way first; then the smallest groups, each after what it waits for; backwards the other way."""
    ways = {name for name, state in migration.groups.items() if state.to}
    by_name = {one.name: one for one in facts}
    order: list[str] = []

    def add(name: str) -> None:
        if name in by_name and name not in order:
            for before in by_name[name].after:
                add(before)
            order.append(name)

    for one in sorted(facts, key=lambda one: (one.size.part_here, one.name)):
        add(one.name)
    if to == HOST:
        order.reverse()
    left = [name for name in order if (name in migration.groups if to == HOST else not _lives_there(name, migration))]
    return sorted(left, key=lambda name: name not in ways)


# --- shown


def document(plan: MigrationPlan) -> dict[str, Any]:
    """For scripts."""
    return {
        "fleet": plan.fleet,
        "place": plan.place,
        "to": plan.to,
        "budget": plan.budget,
        "moves": [
            {
                "group": move.group,
                "refused": move.refused,
                "stopsFirst": move.size.stops_first,
                "interrupts": move.interrupts,
                "room": move.room,
                "steps": [
                    {"pods": one.pods, "slotsThere": one.pods * move.size.unit, "slotsHere": _here(one, move.size)}
                    for one in move.positions
                ],
            }
            for move in plan.moves
        ],
    }


def text(plan: MigrationPlan) -> str:
    """As people read it: the groups in order, under each what is started and stopped."""
    where = f"to {plan.place}" if plan.to == CLUSTER else f"from {plan.place} back to this host"
    if not plan.moves:
        return f"fleet {plan.fleet}: no group is left to move {where}\n"
    budget = f", within {counted(plan.budget, 'slot')}" if plan.budget is not None else ""
    lines = [f"fleet {plan.fleet} moves {where}{budget}"]
    for number, move in enumerate(plan.moves, start=1):
        lines += ["", f"{number}. {move.group}", *(f"   {line}" for line in lines_of(move))]
    return "\n".join(lines) + "\n"


def lines_of(move: Move) -> Iterator[str]:
    """What the move of one group does, in order."""
    if move.refused:
        yield f"refused: {move.refused}"
        return
    if move.size.stops_first:
        yield f"stops on one side before it starts on the other: {move.size.stops_first}"
    elif move.interrupts:
        yield f"stops on one side before it starts on the other: both do not fit into {move.room} slots"
    if len(move.positions) == 1:
        yield "nothing runs: only the side is noted"
    for before, after in zip(move.positions, move.positions[1:], strict=False):
        yield f"{change_text(before, after, move.size):<44}{used_text(after, move)}"


def change_text(before: Position, after: Position, size: Size) -> str:
    """What one step starts or stops."""
    if after.pods != before.pods:
        count = abs(after.pods - before.pods)
        verb = "start" if after.pods > before.pods else "drain"
        return f"{verb} {counted(count, 'pod')} in the cluster"
    verb = "start" if after.here > before.here else "drain"
    if size.step != size.full:
        return f"{verb} {counted(abs(after.here - before.here), 'slot')} on the host"
    count = abs(len(shape(after.here, size.full)) - len(shape(before.here, size.full)))
    return f"{verb} {counted(count, 'replica')} on the host"


def used_text(position: Position, move: Move) -> str:
    """The slots on both sides, against what the group may have."""
    size = move.size
    if not size.unit and not size.counts:
        return f"{counted(position.pods, 'pod')} there, {position.here} here"
    there, here = position.pods * size.unit, _here(position, size)
    room = f" of {move.room}" if move.room is not None else ""
    return f"slots: {there} there + {here} here = {slots(position, size)}{room}"


def _here(position: Position, size: Size) -> int:
    return position.here if size.counts else 0
