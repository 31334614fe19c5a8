"""A step may end anywhere: in a model of both sides, all points at which it may, and what others may do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.core.balance.divide import shape
from fleet.core.migration.order import GroupFacts, Move, planned
from fleet.core.migration.positions import Size
from fleet.core.migration.split import slots_there
from fleet.core.migration.state import CLUSTER, HOST, Migration, Side
from fleet.errors import NotReady, RolloutFailed
from fleet.operate.cluster.carry_out import Flags
from fleet.operate.migrate.effects import Effects
from fleet.operate.migrate.step import carry_out_move, finish

NEW = Migration("shop", "here", "shop", "box", 0.0, "me")


class Crash(BaseException):
    """The process ends, and cleans nothing up."""


@dataclass
class World:
    """Both sides, and what is written down on each. left: effects until the process ends.

    lent: slots that groups of the host have beyond their parts: all that is left, as its controller gives them.
    """

    facts: list[GroupFacts]
    budget: int | None
    kept: Migration = NEW
    told: Migration | None = None
    here: dict[str, int] = field(default_factory=dict)
    there: dict[str, int] = field(default_factory=dict)
    lent: int = 0
    left: int = 10**9
    broken: bool = False
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.here = {one.name: one.size.here for one in self.facts}
        self.lend()

    def lend(self) -> None:
        """What the host's controller gives away, once the host has come to what is kept."""
        borrowers = [one for one in self.facts if one.size.counts and one.name not in self.kept.groups]
        taken = sum(self.slots_of(one.name) for one in self.facts if one.size.counts)
        left = 0 if self.budget is None else self.budget - taken - sum(one.there for one in self.kept.groups.values())
        self.lent = left if borrowers else 0

    def size(self, group: str) -> Size:
        return next(one.size for one in self.facts if one.name == group)

    def point(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash
        self.check()

    def check(self) -> None:
        """What runs, and what would after an apply on either side, is within the budget."""
        if self.budget is None:
            return
        told_there = {one.name: self.pods_of(one.name, self.told) for one in self.facts}
        kept_here = {one.name: self.slots_of(one.name) for one in self.facts}
        for here in (self.here, kept_here):
            for there in (self.there, told_there):
                taken = sum(self.taken(one, here, there) for one in self.facts)
                assert taken <= self.budget, (here, there)
        now = sum(self.taken(one, self.here, self.there) for one in self.facts)
        assert now + self.lent <= self.budget, "what the host has lent is taken back before pods come"
        if self.told is not None:
            left_by_host = sum(one.there for one in self.kept.groups.values())
            assert slots_there(self.told) <= left_by_host, "the cluster never has more than the host leaves"

    def taken(self, one: GroupFacts, here: dict[str, int], there: dict[str, int]) -> int:
        return there.get(one.name, 0) * one.size.unit + (here[one.name] if one.size.counts else 0)

    def pods_of(self, group: str, migration: Migration | None) -> int:
        """What an apply in the cluster makes of a group."""
        if migration is None:
            return self.there.get(group, 0) if not self.kept.is_complete else self.size(group).pods
        state = migration.groups.get(group)
        return 0 if state is None else state.pods

    def slots_of(self, group: str) -> int:
        """What an apply on the host makes of a group."""
        state = self.kept.groups.get(group)
        return self.size(group).here if state is None else state.here

    def move(self, to: Side, group: str) -> Move | None:
        moves = planned(self.facts, self.kept, to=to, budget=self.budget, named={group}).moves
        return moves[0] if moves else None


class ModelEffects(Effects):
    """The effects on a model."""

    world: World

    def kept(self) -> Migration:
        return self.world.kept

    def told(self) -> Migration | None:
        return self.world.told

    def groups(self) -> frozenset[str]:
        return frozenset(one.name for one in self.world.facts)

    def check_there(self, migration: Migration) -> None:
        pass

    def _done(self, effect: Callable[[], None]) -> None:
        self.world.point()
        effect()
        self.world.point()

    def keep(self, migration: Migration) -> None:
        self._done(lambda: setattr(self.world, "kept", migration))

    def forget(self) -> None:
        self._done(lambda: setattr(self.world, "kept", NEW))

    def tell(self, migration: Migration) -> None:
        self._done(lambda: setattr(self.world, "told", migration))

    def forget_there(self) -> None:
        self._done(lambda: setattr(self.world, "told", None))

    def audit(self, **entry: Any) -> None:
        self.world.entries.append(entry)

    def live_pods(self, group: str) -> int | None:
        return self.world.there.get(group)

    def there(
        self, migration: Migration | None, group: str = "", *, most: int | None = None, ready: bool = True
    ) -> None:
        def apply() -> None:
            for one in self.world.facts:
                pods = one.size.pods if migration is None else self.world.pods_of(one.name, migration)
                if self.world.broken and ready and pods:
                    raise NotReady("pods do not start")
                self.world.there[one.name] = pods

        self._done(apply)
        assert most is None or self.world.there.get(group, 0) <= most

    def here(self, group: str = "") -> None:
        def come() -> None:
            self.world.here[group] = self.world.slots_of(group)
            self.world.lend()

        self._done(come)


def effects_on(world: World) -> ModelEffects:
    made = ModelEffects(cast("Any", None), cast("Any", None), Flags(say=lambda _line: None), walk=cast("Any", None))
    object.__setattr__(made, "world", world)
    return made


def run(world: World, to: Side, group: str) -> None:
    move = world.move(to, group)
    if move is None:
        finish(effects_on(world))
    else:
        assert not move.refused, move
        carry_out_move(move, effects_on(world))


@st.composite
def facts(draw: st.DrawFn) -> list[GroupFacts]:
    made = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        counts = draw(st.booleans())
        full, here = draw(st.integers(1, 4)), draw(st.integers(0, 12))
        unit, pods = (draw(st.integers(1, 4)), draw(st.integers(0, 6))) if counts else (0, draw(st.integers(0, 2)))
        stops = draw(st.sampled_from(["", "", "a job runs once"]))
        part = here if counts else 0
        size = Size(pods, unit, unit, here, full, counts, part, pods * unit, stops)
        made.append(GroupFacts(name, size))
    return made


def budget_of(groups: list[GroupFacts], more: int) -> int:
    return sum(max(one.size.part_here, one.size.part_there) for one in groups) + more


@settings(max_examples=60)
@given(groups=facts(), more=st.integers(0, 8), data=st.data())
def test_wherever_a_step_ends_the_next_one_goes_on_or_turns_back(
    groups: list[GroupFacts], more: int, data: st.DataObject
) -> None:
    world = World(groups, budget_of(groups, more))
    for _ in range(data.draw(st.integers(1, 6), label="steps")):
        group = data.draw(st.sampled_from([one.name for one in groups]), label="group")
        to = data.draw(st.sampled_from([CLUSTER, HOST]), label="to")
        world.left = data.draw(st.integers(1, 40), label="effects until it ends")
        try:
            run(world, to, group)
        except Crash:
            size = world.size(group)
            if size.pods and size.here and not size.stops_first:
                roomy = world.budget is None or more >= size.pods * size.unit
                assert world.here[group] or world.there.get(group) or not roomy, "it serves"
    world.left = 10**9
    for one in groups:
        run(world, CLUSTER, one.name)
    assert world.there == {one.name: one.size.pods for one in groups}
    assert not any(world.here.values())
    assert (world.kept.is_complete, world.told) == (True, None)
    for one in groups:
        run(world, HOST, one.name)
    assert world.here == {one.name: one.size.here for one in groups}
    assert not any(world.there.values())
    assert (world.kept, world.told) == (NEW, None)


MAIL = GroupFacts("mail", Size(2, 4, 4, 8, 4, True, 8, 8))
CLOCK = GroupFacts("clock", Size(1, 0, 1, 1, 1, False, stops_first="two of beat would send every task twice"))


@pytest.mark.parametrize("to", [CLUSTER, HOST])
@pytest.mark.parametrize("budget", [8, 12, 16, None])
def test_every_single_point_at_which_it_may_end(to: Side, budget: int | None) -> None:
    number, ends = 0, 0
    while not ends:
        number += 1
        world = World([MAIL], budget)
        if to == HOST:
            run(world, CLUSTER, "mail")
        world.left = number
        try:
            run(world, to, "mail")
            ends = number
        except Crash:
            world.check()
            assert world.here["mail"] or world.there.get("mail"), "it serves"
            world.left = 10**9
            run(world, to, "mail")
        assert (world.here["mail"], world.there["mail"]) == ((0, 2) if to == CLUSTER else (8, 0))
    assert ends > 10


def test_a_failed_step_leaves_both_sides_serving_and_says_so() -> None:
    world = World([MAIL], 12)
    effects = effects_on(world)
    move = world.move(CLUSTER, "mail")
    assert move is not None
    world.broken = True
    with pytest.raises(
        NotReady, match="mail stays on both sides: 2 replicas on this host, 1 pod in the cluster"
    ) as caught:
        carry_out_move(move, effects)
    assert "--back" in caught.value.hint
    assert world.here["mail"] == 8
    assert world.entries[-1]["event"] == "migration.failed"
    world.broken = False
    run(world, HOST, "mail")
    assert (world.here, world.kept) == ({"mail": 8}, NEW)


def test_what_must_never_run_twice_goes_back_where_it_does_not_start() -> None:
    world = World([CLOCK], None, broken=True)
    move = world.move(CLUSTER, "clock")
    assert move is not None
    with pytest.raises(RolloutFailed, match="clock runs on this host again") as caught:
        carry_out_move(move, effects_on(world))
    assert caught.value.exit_code == 5
    assert (world.here["clock"], world.there.get("clock", 0)) == (1, 0)


def test_a_group_that_a_scaler_had_grown_comes_back_through_its_own_part() -> None:
    world = World([MAIL], 12)
    run(world, CLUSTER, "mail")
    world.there["mail"] = 3
    world.kept = replace(world.kept, is_complete=False)
    run(world, HOST, "mail")
    assert world.here["mail"] == 8
    assert shape(8, 4) == (4, 4)
