"""The judgement of a canary: what no numbers may change, and what a person reads."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fleet.core.canary import Tally, judged, tally, verdict
from fleet.core.desired import CanaryPolicy
from fleet.core.observed import ObservedReplica, RunningTask, State

MIB = 1 << 20


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    done = draw(st.integers(0, 10_000))
    return Tally(
        replicas=draw(st.integers(1, 50)),
        done=done,
        failed=draw(st.integers(0, done)),
        runs=done + draw(st.integers(0, 100)),
        busy_seconds=draw(st.floats(0, 1e6)),
        memory_bytes=draw(st.floats(0, 1e12)),
        crashes=draw(st.integers(0, 10)),
    )


policies = st.builds(
    CanaryPolicy,
    failure_rate=st.floats(0, 1),
    latency=st.floats(1, 10),
    memory=st.floats(1, 10),
    crashes=st.integers(0, 10),
    min_tasks=st.integers(1, 1000),
)


@given(policies, tallies())
def test_what_does_exactly_as_the_old_ones_passes(policy: CanaryPolicy, old: Tally) -> None:
    assert verdict(policy, replace(old, crashes=0), old).passed


@given(policies, tallies(), tallies(), st.integers(1, 100))
def test_worse_never_passes_where_better_failed(policy: CanaryPolicy, new: Tally, old: Tally, more: int) -> None:
    worse = (
        replace(new, failed=min(new.done, new.failed + more)),
        replace(new, crashes=new.crashes + more),
        replace(new, memory_bytes=new.memory_bytes + more * MIB),
        replace(new, busy_seconds=new.busy_seconds + more),
    )
    if not verdict(policy, new, old).passed:
        assert not any(verdict(policy, one, old).passed for one in worse)


@given(policies, tallies(), tallies())
def test_rates_of_a_few_tasks_are_not_judged(policy: CanaryPolicy, new: Tally, old: Tally) -> None:
    few = replace(new, done=policy.min_tasks - 1, failed=policy.min_tasks - 1, crashes=0, memory_bytes=0.0)
    assert verdict(policy, few, old).passed


@given(policies, tallies(), tallies())
def test_every_problem_is_in_the_text(policy: CanaryPolicy, new: Tally, old: Tally) -> None:
    found = verdict(policy, new, old)
    assert found.passed == str(found).endswith("no worse")
    assert all(problem in str(found) for problem in found.problems)


def seen(index: int, digest: str, **counts: object) -> ObservedReplica:
    base = ObservedReplica("a", index, digest, State.READY, pid=100 + index, memory_bytes=100 * MIB)
    return replace(base, **counts)  # type: ignore[arg-type]


def test_only_what_was_there_at_both_ends_as_the_same_is_compared() -> None:
    before = {"a.0": seen(0, "new"), "a.1": seen(1, "old", processed=1000, failed=500, busy_seconds=50.0)}
    before |= {"a.2": seen(2, "old"), "a.3": seen(3, "old")}
    after = {
        "a.0": seen(0, "new", processed=40, failed=10, busy_seconds=8.0),
        "a.1": seen(1, "old", processed=1100, failed=501, busy_seconds=60.0),
        "a.2": seen(2, "new", processed=5, failed=5),  # was replaced meanwhile
    }
    found = judged(CanaryPolicy(), before, after, digest="new")
    assert (found.new.done, found.old.done) == (40, 100), "what was counted before the window does not count"
    assert str(found) == (
        "canary, new 1 replica: 25.0% of 40 tasks failed, 0.2 s a run, 100Mi, 0 crashes;"
        " old 1 replica: 1.0% of 100 tasks failed, 0.1 s a run, 100Mi, 0 crashes:"
        " worse: failure rate 25.0%, allowed 6.0%, 0.2 s a run, allowed 0.15 s"
    )


def test_a_process_that_began_in_the_window_counts_from_nothing() -> None:
    before = seen(0, "new", processed=1000, busy_seconds=10.0)
    after = seen(0, "new", pid=7, processed=3, busy_seconds=1.5, crashes=1)
    found = tally([(before, after)])
    assert (found.done, found.busy_seconds, found.crashes) == (3, 1.5, 1)


def test_a_task_that_runs_has_no_run_time_yet() -> None:
    running = seen(0, "new", processed=1, busy_seconds=61.0, tasks=(RunningTask("id", "slow", 60.0),))
    assert tally([(seen(0, "new"), running)]).run_seconds == 1.0
