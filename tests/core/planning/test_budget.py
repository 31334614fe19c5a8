"""Ceilings at rest and at the rollout's peak, with the sums in every refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.core.desired import Budgets, Desired, Price, RolloutPolicy
from fleet.core.observed import Observed
from fleet.core.plan import Usage
from fleet.core.planning import budget
from fleet.errors import Refused
from tests.worlds import FLEET, fleet, group, planned, running

NOTHING = Observed(FLEET)
MI = 1 << 20


def check(desired: Desired, observed: Observed, **options: bool) -> None:
    budget.check(desired, planned(desired, observed, **options), observed)


def test_ten_solos_and_one_prefork_differ_in_processes() -> None:
    wanted = fleet(group("reports", 10, pool="prefork"), group("thumbs", *[1] * 10))

    assert planned(wanted, NOTHING).usage == (Usage("slots", 20, 20), Usage("processes", 21, 21))


def test_a_fork_server_is_a_process_too() -> None:
    plain = group("reports", 10, pool="prefork")
    pool = replace(plain.spec.pool, start_method="forkserver")

    wanted = fleet(replace(plain, spec=replace(plain.spec, pool=pool)))

    assert planned(wanted, NOTHING).usage == (Usage("slots", 10, 10), Usage("processes", 12, 12))


def test_a_rollout_counts_its_spare_at_the_peak() -> None:
    price = Price(memory_per_slot_bytes=100 * MI, connections_per_slot=(("postgres", 2),))
    old, new = (group("reports", 10, pool="prefork", env={"A": value}, price=price) for value in "12")

    assert planned(fleet(new), running(old)).usage == (
        Usage("slots", 10, 20),
        Usage("processes", 11, 22),
        Usage("memory", 1000 * MI, 2000 * MI, unit="bytes"),
        Usage("postgres connections", 20, 40),
    )


def test_a_peak_over_the_ceiling_is_refused_with_the_sums() -> None:
    old, new = (group("reports", 10, pool="prefork", env={"A": value}) for value in "12")
    wanted = fleet(new, group("thumbs", 1), budgets=Budgets(processes=20))

    with pytest.raises(Refused) as refused:
        check(wanted, running(old, group("thumbs", 1)))

    assert refused.value.message == (
        "processes: 23 of 20 at the rollout's peak (12 at rest), 3 too many (reports 11, thumbs 1)"
    )
    assert "maxSurge: 0" in refused.value.hint


def test_at_rest_over_the_ceiling_names_every_budget() -> None:
    price = Price(memory_per_replica_bytes=300 * MI, connections_per_replica=(("postgres", 3),))
    limits = Budgets(slots=3, processes=3, memory_bytes=1024 * MI, connections=(("postgres", 10),))

    with pytest.raises(Refused) as refused:
        check(fleet(group("a", *[1] * 4, price=price), budgets=limits), NOTHING)

    assert refused.value.message.split("; ") == [
        "slots: 4 of 3, 1 too many (a 4)",
        "processes: 4 of 3, 1 too many (a 4)",
        "memory: 1.2Gi of 1Gi, 176Mi too many (a 1.2Gi)",
        "postgres connections: 12 of 10, 2 too many (a 12)",
    ]


def test_spares_do_not_count_against_the_slots_of_the_fleet() -> None:
    old, new = (group("thumbs", *[1] * 10, env={"A": value}) for value in "12")

    check(fleet(new, budgets=Budgets(slots=10)), running(old))


def test_orphans_count_where_they_really_use_something_and_the_hint_says_prune() -> None:
    wanted = fleet(group("new", *[1] * 6), budgets=Budgets(slots=8, processes=8))
    seen = running(group("old", *[1] * 6))

    with pytest.raises(Refused, match="processes: 12 of 8") as refused:
        check(wanted, seen)

    assert "--prune" in refused.value.hint


def test_what_leaves_makes_room_first_when_the_ceiling_asks_for_it() -> None:
    wanted = fleet(group("new", *[1] * 6), budgets=Budgets(processes=8))
    seen = running(group("old", *[1] * 6))

    todo = planned(wanted, seen, prune=True)

    budget.check(wanted, todo, seen)
    assert [(step.action, step.wave) for step in todo.changes] == [("drain", 0)] * 6 + [("start", 1)] * 6
    assert set(todo.changes[-1].after) == {f"drain old.{index}" for index in range(6)}


def test_slots_moved_between_groups_never_run_twice_when_the_budget_is_full() -> None:
    before = (group("a", *[1] * 4), group("b", *[1] * 4))
    wanted = fleet(group("a", *[1] * 2), group("b", *[1] * 6), budgets=Budgets(slots=8))

    todo = planned(wanted, running(*before))

    assert todo.usage[0] == Usage("slots", 8, 8, 8)


def test_without_a_tight_ceiling_nobody_waits_for_room() -> None:
    before = (group("a", *[1] * 4), group("b", *[1] * 4))
    wanted = fleet(group("a", *[1] * 2), group("b", *[1] * 6))

    assert {step.wave for step in planned(wanted, running(*before)).changes} == {0}


def test_a_command_counts_its_capacity() -> None:
    command = group("rq", 3, 3)
    command = replace(command, spec=replace(command.spec, kind="command"), capacity_slots=3, processes_per_replica=2)

    assert planned(fleet(command), NOTHING).usage == (Usage("slots", 6, 6), Usage("processes", 4, 4))


def test_in_place_replacement_uses_nothing_twice() -> None:
    in_place = RolloutPolicy("rolling", 0, 1)
    old, new = (group("a", *[1] * 3, env={"A": value}, rollout=in_place) for value in "12")

    assert planned(fleet(new), running(old)).usage[0] == Usage("slots", 3, 3)
