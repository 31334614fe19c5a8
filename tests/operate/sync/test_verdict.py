"""What to do with the revision at hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.operate.sync.conditions import RECONCILING, STAGES, Condition, Conditions, from_json
from fleet.operate.sync.verdict import Situation, Verdict, decide

commits = st.sampled_from(["", "a", "b", "c"])
situations = st.builds(
    Situation,
    good=commits,
    applied=commits,
    failed=commits,
    is_paused=st.booleans(),
    approved=commits,
    mode=st.sampled_from(["auto", "plan-only", "window"]),
    heal=st.sampled_from(["enabled", "warn", "disabled"]),
    suspended=st.sampled_from(["", "", "until noon"]),
    window_closes=st.sampled_from([None, 5.0]),
    window_opens=st.sampled_from([None, 9.0]),
)


@given(situations)
def test_only_a_valid_revision_is_deployed_and_only_when_it_may_be(now: Situation) -> None:
    verdict = decide(now)
    if verdict.deploy:
        assert verdict.deploy == now.good != now.applied
        assert not now.suspended
        assert now.mode == "auto" or now.approved == now.good or now.window_closes is not None
        assert now.good != now.failed or now.approved == now.good


@given(situations)
def test_a_suspended_source_touches_nothing(now: Situation) -> None:
    if now.suspended:
        assert decide(now) == Verdict(reason="Suspended", message=now.suspended)


@given(situations)
def test_only_what_was_applied_is_healed(now: Situation) -> None:
    verdict = decide(now)
    assert verdict.heal in {"", now.applied}
    assert verdict.watch in {"", now.applied}
    assert not (verdict.heal and verdict.watch)
    assert not (verdict.deploy and (verdict.heal or verdict.preview))
    if verdict.heal:
        assert now.heal == "enabled"
        assert now.mode != "plan-only"


@given(situations)
def test_a_revision_that_waits_or_failed_never_stops_the_healing(now: Situation) -> None:
    held = now.suspended or (now.good == now.failed and now.is_paused and now.good != now.applied)
    if now.applied and now.heal == "enabled" and now.mode != "plan-only" and not held:
        verdict = decide(now)
        assert verdict.heal == now.applied or verdict.deploy


def test_a_rollout_that_stands_half_done_waits_for_a_person() -> None:
    now = Situation(good="b", applied="a", failed="b", is_paused=True)
    assert decide(now).reason == "RolloutPaused"
    assert not decide(now).heal


# --- conditions

rows = st.builds(
    Condition,
    stage=st.sampled_from(RECONCILING),
    state=st.sampled_from(["True", "False", "Unknown"]),
    reason=st.sampled_from(["", "X"]),
    message=st.text(max_size=5),
    revision=commits,
    since=st.floats(1, 1e9).map(lambda seconds: round(seconds, 3)),
)


@given(st.lists(rows, max_size=8))
def test_conditions_read_back_as_themselves(changes: list[Condition]) -> None:
    conditions = Conditions(RECONCILING)
    for one in changes:
        conditions = conditions.with_(one)
    again = from_json(conditions.to_json(), RECONCILING)
    assert again.to_json() == conditions.to_json()


@given(st.lists(rows, min_size=1, max_size=8))
def test_the_last_word_stands_and_its_time_is_that_of_the_change(changes: list[Condition]) -> None:
    conditions = Conditions(RECONCILING)
    for one in changes:
        before = conditions.get(one.stage)
        conditions = conditions.with_(one)
        now = conditions.get(one.stage)
        assert (now.state, now.reason, now.message) == (one.state, one.reason, one.message)
        assert now.since == (before.since if before.state == one.state and before.since else one.since)


def test_what_comes_after_a_stage_that_failed_is_not_known_for_that_revision() -> None:
    conditions = Conditions(STAGES)
    for stage in STAGES:
        conditions = conditions.with_(Condition(stage, "True", "", "", "a", 1.0))
    conditions = conditions.with_(Condition("Verified", "False", "NotSigned", "", "b", 2.0))
    conditions = conditions.with_(Condition("Valid", "True", "", "", "b", 2.0))
    conditions = conditions.with_(Condition("Fetched", "False", "GitError", "", "b", 3.0))
    assert conditions.get("Valid").state == "Unknown"
    assert conditions.get("Ready").state == "True"  # of a, which goes on
