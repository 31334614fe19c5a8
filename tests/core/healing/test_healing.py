"""What a look puts right, when, and when it gives up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.decode import decoded
from fleet.core.desired import Desired, DesiredGroup, RolloutPolicy
from fleet.core.healing.judge import (
    MOST_HEALS,
    NOTHING_HEALED,
    WINDOW_SECONDS,
    HealMemory,
    Judged,
    Verdict,
    judge,
    pause_seconds,
    remembered,
)
from fleet.core.healing.kinds import Kind, Mode, ailments, starved
from fleet.core.healing.steps import healing_steps
from fleet.core.observed import Observed, State, Trouble
from fleet.core.plan import Action
from tests.worlds import but, fleet, group, running, without

THREE = group("thumbs", 1, 1, 1)
ENABLED = dict.fromkeys(Kind, Mode.ENABLED)
NOW = 1_000_000.0


def steps(
    desired: Desired, seen: Observed, *, has_ended: bool = True, moving: frozenset[str] = frozenset()
) -> list[str]:
    found = healing_steps(desired, seen, starved=starved(seen), moving=moving, has_ended=has_ended)
    return [step.id for step in found]


def look(
    desired: Desired,
    seen: Observed,
    memory: HealMemory = NOTHING_HEALED,
    *,
    now: float = NOW,
    modes: dict[Kind, Mode] = ENABLED,
) -> tuple[tuple[Judged, ...], HealMemory]:
    """One look that begins whatever it may."""
    todo = healing_steps(desired, seen, starved=starved(seen), moving=(), has_ended=True)
    judged = judge(ailments(todo, seen, under_way=memory.under_way), memory, modes, now=now)
    begun = {one.ailment.key for one in judged if one.verdict is Verdict.HEAL}
    return judged, remembered(memory, judged, begun, observed=seen, ending=frozenset(), now=now)


SICK = {
    Kind.STOPPED: but(running(THREE), "thumbs.1", state=State.STOPPED, pid=None),
    Kind.STUCK: but(running(THREE), "thumbs.1", state=State.UNKNOWN, trouble=Trouble.STUCK),
    Kind.MISSING: without(running(THREE), "thumbs.1"),
    Kind.PARKED: but(running(THREE), "thumbs.1", state=State.FAILED, pid=None),
    Kind.DRIFT: but(running(THREE), "thumbs.1", held=True, state=State.DRAINING),
}


@pytest.mark.parametrize("kind", SICK)
def test_each_class_is_known_by_what_is_seen(kind: Kind) -> None:
    judged, _ = look(fleet(THREE), SICK[kind], now=NOW)

    assert [(one.ailment.kind, one.ailment.step.replica) for one in judged] == [(kind, "thumbs.1")]
    assert judged[0].verdict is (Verdict.WAIT if kind is Kind.PARKED else Verdict.HEAL)


@pytest.mark.parametrize("trouble", [Trouble.STUCK, Trouble.UNHEALTHY])
def test_what_lives_and_does_not_work_is_restarted(trouble: Trouble) -> None:
    seen = but(running(THREE), "thumbs.1", state=State.UNKNOWN, trouble=trouble)
    (judged,), _ = look(fleet(THREE), seen)
    assert (judged.ailment.kind, judged.ailment.step.action) == (Kind.STUCK, Action.RESTART)


def test_one_whose_launcher_refuses_its_document_gets_it_again() -> None:
    """One whose app cannot be imported has its document, and a heal would not help it."""
    unable = but(running(THREE), "thumbs.1", state=State.STARTING, cannot_start=True)
    assert look(fleet(THREE), unable)[0] == ()
    judged, _ = look(fleet(THREE), but(unable, "thumbs.1", spec=None))
    assert [(one.ailment.kind, one.ailment.step.id) for one in judged] == [(Kind.DRIFT, "restart thumbs.1")]
    assert judged[0].verdict is Verdict.HEAL


def test_a_fleet_as_applied_needs_nothing() -> None:
    assert steps(fleet(THREE), running(THREE)) == []


def test_who_takes_no_tasks_is_restarted_only_where_the_broker_answers_others() -> None:
    alone = but(running(THREE), "thumbs.1", state=State.UNKNOWN, trouble=Trouble.NOT_CONSUMING)
    everybody = alone
    for name in ("thumbs.0", "thumbs.2"):
        everybody = but(everybody, name, state=State.UNKNOWN, trouble=Trouble.NOT_CONSUMING)

    assert steps(fleet(THREE), alone) == ["restart thumbs.1"]
    assert steps(fleet(THREE), everybody) == []


@pytest.mark.parametrize(("counts", "expected"), [(True, ["restart thumbs.1"]), (False, [])])
def test_celerys_worker_that_takes_no_tasks_is_restarted_where_others_say_that_they_do(
    counts: bool, expected: list[str]
) -> None:
    celery = group("thumbs", 1, 1, 1, spec=replace(THREE.spec, kind="celery"))
    seen = running(celery)
    for name in ("thumbs.0", "thumbs.2"):
        seen = but(seen, name, counts=counts)
    seen = but(seen, "thumbs.1", counts=True, state=State.UNKNOWN, trouble=Trouble.NOT_CONSUMING)

    assert steps(fleet(celery), seen) == expected


def test_one_that_crashes_is_left_to_its_launcher() -> None:
    assert steps(fleet(THREE), but(running(THREE), "thumbs.1", state=State.STARTING, trouble=Trouble.CRASHING)) == []


def test_the_controller_and_the_data_of_the_broker_are_not_touched() -> None:
    own = [group(name, 1, system=True) for name in ("fleet-broker", "fleet-controller")]
    seen = running(*own)
    for name in ("fleet-broker.0", "fleet-controller.0"):
        seen = but(seen, name, digest="0ld0ld00")
    assert steps(fleet(*own), seen) == []
    stopped = but(running(*own), "fleet-broker.0", state=State.STOPPED, pid=None)
    assert steps(fleet(*own), stopped) == ["start fleet-broker.0"]


def test_while_a_rollout_is_not_at_its_end_only_what_is_up_to_date_is_healed() -> None:
    seen = but(without(running(THREE), "thumbs.2"), "thumbs.0", digest="0ld0ld00", state=State.STOPPED, pid=None)
    parked = but(running(THREE), "thumbs.1", state=State.FAILED, pid=None)

    assert steps(fleet(THREE), seen, has_ended=False) == []
    assert steps(fleet(THREE), parked, has_ended=False) == []
    for kind in (Kind.STOPPED, Kind.STUCK):
        assert len(steps(fleet(THREE), SICK[kind], has_ended=False)) == 1


def test_groups_that_autoscale_get_their_replicas_from_the_moves() -> None:
    moving = frozenset({"thumbs"})
    assert steps(fleet(THREE), SICK[Kind.MISSING], moving=moving) == []
    assert steps(fleet(THREE), SICK[Kind.STUCK], moving=moving) == ["restart thumbs.1"]
    outdated = but(running(THREE), "thumbs.1", digest="0ld0ld00")
    assert steps(fleet(THREE), outdated, moving=moving) == ["start thumbs.3"], "no slots move there until it is mended"


@given(st.integers(0, 3), st.integers(0, 3), st.sets(st.integers(0, 4)))
def test_the_bounds_of_a_rollout_hold_while_drift_is_mended(surge: int, away: int, old: set[int]) -> None:
    """Look by look, each begun whole: never fewer replicas work than the policy says, and the end is as applied."""
    policy = RolloutPolicy(max_surge=surge, max_unavailable=away if surge or away else 1)
    five = group("thumbs", 1, 1, 1, 1, 1, rollout=policy)
    seen = running(five)
    for index in old:
        seen = but(seen, f"thumbs.{index}", digest="0ld0ld00")
    least = 5 - policy.max_unavailable
    for _ in range(40):
        found = healing_steps(fleet(five), seen, starved=frozenset(), moving=(), has_ended=True)
        if not found:
            break
        gone = {step.replica for step in found if step.action in (Action.REPLACE, Action.DRAIN)}
        assert sum(one.is_ready for name, one in seen.replicas.items() if name not in gone) >= least
        for step in found:
            seen = without(seen, step.replica) if step.action is Action.DRAIN else _come(seen, step.replica, five)
    assert steps(fleet(five), seen) == []
    assert len(seen.replicas) == 5
    assert all(one.digest != "0ld0ld00" for one in seen.replicas.values())


def _come(seen: Observed, name: str, of: DesiredGroup) -> Observed:
    index = int(name.rpartition(".")[2])
    fresh = replace(running(of).replicas["thumbs.0"], index=index)
    return replace(seen, replicas={**seen.replicas, name: fresh})


# --- how often


@pytest.mark.parametrize("kind", SICK)
def test_three_heals_of_one_class_within_ten_minutes_are_enough(kind: Kind) -> None:
    memory, now, healed, told = NOTHING_HEALED, NOW, [], 0
    for _ in range(400):
        judged, memory = look(fleet(THREE), SICK[kind], replace(memory, under_way={}), now=now)
        healed += [now for one in judged if one.verdict is Verdict.HEAL]
        told += sum(one.verdict is Verdict.GIVEN_UP and one.fresh for one in judged)
        now += 5.0
    pauses = [after - before for before, after in pairwise(healed)]

    assert len(healed) == MOST_HEALS
    assert told == 1, "it is said once, and it stays given up though the ten minutes are over"
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == len(pauses), "the pause grows"


@pytest.mark.parametrize("kind", SICK)
def test_one_that_a_person_put_right_is_healed_again(kind: Kind) -> None:
    memory, now = NOTHING_HEALED, NOW
    for _ in range(200):
        _, memory = look(fleet(THREE), SICK[kind], replace(memory, under_way={}), now=now)
        now += 5.0
    assert memory.given_up
    _, memory = look(fleet(THREE), running(THREE), memory, now=now)
    assert not memory.given_up
    judged, _ = look(fleet(THREE), SICK[kind], memory, now=now + WINDOW_SECONDS)
    assert [one.verdict for one in judged] == [Verdict.WAIT if kind is Kind.PARKED else Verdict.HEAL]


def test_a_restart_is_one_heal_though_it_takes_several_looks() -> None:
    desired, sick = fleet(THREE), SICK[Kind.STUCK]
    _, memory = look(desired, sick)
    leaving = but(sick, "thumbs.1", state=State.DRAINING)
    judged, memory = look(desired, leaving, memory, now=NOW + 40.0)
    assert judged == ()
    only_stuck = {**ENABLED, Kind.STOPPED: Mode.OFF}
    judged, memory = look(desired, SICK[Kind.STOPPED], memory, now=NOW + 45.0, modes=only_stuck)
    assert [(one.ailment.kind, one.verdict) for one in judged] == [(Kind.STUCK, Verdict.HEAL)]
    assert {key: len(times) for key, times in memory.heals.items()} == {"stuck thumbs.1": 1}
    assert not memory.under_way


def test_warn_says_it_once_and_off_says_nothing() -> None:
    warn, off = (dict.fromkeys(Kind, mode) for mode in (Mode.WARN, Mode.OFF))
    judged, memory = look(fleet(THREE), SICK[Kind.STUCK], modes=warn)
    assert [(one.verdict, one.fresh) for one in judged] == [(Verdict.WARN, True)]
    judged, memory = look(fleet(THREE), SICK[Kind.STUCK], memory, now=NOW + 5.0, modes=warn)
    assert [(one.verdict, one.fresh) for one in judged] == [(Verdict.WARN, False)]
    assert look(fleet(THREE), SICK[Kind.STUCK], modes=off)[0] == ()


@given(
    st.sampled_from(list(SICK)),
    st.lists(st.floats(0.1, 400.0), min_size=1, max_size=60),
)
def test_never_more_than_three_of_a_class_within_any_ten_minutes(kind: Kind, pauses: list[float]) -> None:
    memory, now, healed = NOTHING_HEALED, NOW, []
    for pause in pauses:
        judged, memory = look(fleet(THREE), SICK[kind], replace(memory, under_way={}), now=now)
        healed += [now for one in judged if one.verdict is Verdict.HEAL]
        now += pause
    assert all(sum(0 <= other - one < WINDOW_SECONDS for other in healed) <= MOST_HEALS for one in healed)


@given(st.sampled_from(list(Kind)), st.integers(0, 5))
def test_the_pause_grows_with_every_heal(kind: Kind, heals: int) -> None:
    assert pause_seconds(kind, heals + 1) > pause_seconds(kind, heals)


def test_what_is_remembered_survives_its_file() -> None:
    _, memory = look(fleet(THREE), SICK[Kind.STUCK])
    memory = replace(memory, given_up=frozenset({"a", "b"}), ending=frozenset({"thumbs"}))
    assert decoded(HealMemory, memory.to_json()) == memory
