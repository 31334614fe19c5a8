"""From a manifest to what a controller divides, and what other budgets do to shares."""

from __future__ import annotations

import pytest

from fleet.core.autoscale.groups import ScaledGroups, scaled_groups
from fleet.core.balance.costs import Prices
from fleet.core.expand.expand import expand, full_specs
from fleet.core.expand.facts import Facts, Overrides
from fleet.core.manifest.models import Manifest
from fleet.errors import Refused
from tests.core.texts import fleet, read

FACTS = Facts(cpus=2, embedded_url="redis+socket:///s", embedded_command=("redis-server",))
GROUPS = """\
fixed: {pool: {type: prefork, concurrency: 4}, replicas: 2}
    still: {pool: solo, share: {weight: 1, max: 5}}
    moved: {pool: {type: threads, concurrency: 8}, autoscale: {weight: 3, targetWait: 3s, expectedRuntime: 200ms}}
    other: {pool: solo, autoscale: {weight: 1, min: 0, idleAfter: 1m, loans: false, onMissingMetrics: static}}"""


def manifest(groups: str = GROUPS, *, more: str = "  concurrency: 40\n") -> Manifest:
    return read(fleet(groups, more=more)).manifest


def found(
    groups: str = GROUPS, *, more: str = "  concurrency: 40\n", overrides: Overrides | None = None
) -> ScaledGroups:
    text = manifest(groups, more=more)
    return scaled_groups(text, full_specs(text, FACTS), overrides=overrides or Overrides())


def test_what_fixed_groups_and_static_shares_leave_is_divided() -> None:
    assert found().budget == 40 - 8 - 5
    assert [group.name for group in found().groups] == ["moved", "other"]


def test_a_group_says_what_it_promises_and_its_pool_what_a_slot_costs() -> None:
    moved, other = found().groups

    assert (moved.target_wait_seconds, moved.expected_runtime_seconds, moved.start_seconds) == (3.0, 0.2, 0.0)
    assert (moved.share.weight, moved.share.min, moved.share.slots_per_replica, moved.loans) == (3, 1, 8, True)
    assert (other.target_wait_seconds, other.start_seconds, other.idle_after_seconds) == (5.0, 3.0, 60.0)
    assert (other.loans, other.on_missing_metrics) == (False, "static")


def test_the_manifest_tunes_what_is_the_owners_to_choose() -> None:
    said = found(more="  concurrency: 40\n  balance: {tick: 5s, surplus: release, squeeze: 0s}\n").parameters

    assert (said.tick_seconds, said.surplus, said.squeeze_seconds) == (5.0, "release", 0.0)
    assert found().parameters.tick_seconds == 1.0


def test_a_group_held_by_hand_is_not_moved() -> None:
    held = found(overrides=Overrides(replicas={"other": 6}))

    assert [group.name for group in held.groups] == ["moved"]
    assert held.budget == 40 - 8 - 6 - 5


PRICED = """\
fixed: {pool: solo, replicas: 2, perReplica: {memory: 100Mi}}
    etl: {pool: {type: prefork, concurrency: 4}, share: {weight: 3}, perSlot: {memory: 100Mi, connections: {pg: 2}}}
    mail: {pool: {type: threads, concurrency: 10}, autoscale: {weight: 1}}"""


@pytest.mark.parametrize(
    ("budgets", "slots", "stopped"),
    [
        ("memory: 1Gi", 8, "no memory left"),
        ("connections: {pg: 9}", 4, "no pg connections left"),
        ("processes: 13", 6, "no processes left"),
    ],
)
def test_a_share_stops_where_another_budget_ends(budgets: str, slots: int, stopped: str) -> None:
    desired = expand(manifest(PRICED, more=f"  concurrency: 40\n  budgets: {{{budgets}}}\n"), facts=FACTS)

    assert desired.groups["etl"].slots == slots
    assert desired.groups["etl"].reason.startswith(stopped)


def test_what_standing_groups_use_is_off_the_other_budgets_too() -> None:
    left = found(PRICED, more="  concurrency: 40\n  budgets: {memory: 1Gi}\n")

    assert left.capacity == {"memory": (1024 - 200 - 800) << 20}
    assert left.groups[0].share.prices == Prices({"processes": 1, "memory": 0}, {"processes": 0, "memory": 0})


def test_minimums_beyond_another_budget_are_refused_with_the_sums() -> None:
    with pytest.raises(Refused, match="need 100Mi memory and 50Mi are there: 50Mi short") as refused:
        expand(manifest(PRICED, more="  concurrency: 40\n  budgets: {memory: 250Mi}\n"), facts=FACTS)

    assert refused.value.hint.startswith("raise memory by 50Mi, lower a min")


def test_a_pool_that_cannot_change_its_slots_moves_by_whole_replicas() -> None:
    text = "own: {pool: {type: custom, class: 'shop.pool:Pool', concurrency: 4}, autoscale: {max: 20}}"
    (own,) = found(text).groups

    assert own.share.unit == 4
    desired = expand(manifest(text), facts=FACTS, overrides=Overrides(slots={"own": 8}))
    assert desired.groups["own"].shape == (4, 4)
