"""From what was seen of replicas and queues to one sample per group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.autoscale.measure import Measured, measure
from fleet.core.autoscale.sample import Backlog, Meter, QueueSample
from fleet.core.decode import decoded
from fleet.core.desired import Desired, DesiredGroup
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.spec import QueueSpec, WorkerSpec
from tests.worlds import but, fleet, group, running
from tests.worlds import without as lacking

NOW = 10_000.0


def at_broker(
    waiting: Mapping[str, int | None], sent_at: Mapping[str, float | None], *, held: Mapping[str, int] | None = None
) -> Backlog:
    """What a broker says: by queue how much waits and when its oldest message was sent."""
    queues = {name: QueueSample(waiting.get(name), sent_at.get(name)) for name in {**waiting, **sent_at}}
    return Backlog(queues, held)


EMPTY = at_broker({"mail": 0}, {})


def taking(name: str, *shape: int, queues: tuple[str, ...] = ("mail",), pool: str = "threads") -> DesiredGroup:
    """A group that takes from these queues."""
    made = group(name, *shape, pool=pool)
    return replace(made, spec=replace(made.spec, queues=tuple(QueueSpec(queue) for queue in queues)))


def working(*groups: DesiredGroup) -> Observed:
    """All of them run and keep count of their work."""
    seen = running(*groups)
    return replace(seen, replicas={name: replace(one, counts=True) for name, one in seen.replicas.items()})


def looked(
    desired: Desired,
    observed: Observed,
    backlog: Backlog = EMPTY,
    *,
    name: str = "a",
    meters: Mapping[str, Meter] | None = None,
) -> Measured:
    """One group as it is now."""
    return measure([name], desired, observed, backlog, meters=meters or {}, now=NOW)[name]


def slots(measured: Measured) -> tuple[int, int, int, int]:
    """Ready, starting, draining, parked."""
    sample = measured.sample
    return sample.ready, sample.starting, sample.draining, measured.parked


def changed(one: DesiredGroup, **fields: Any) -> Measured:
    """A group of which the first replica looks like this."""
    return looked(fleet(one), but(working(one), "a.0", **fields))


# slots


def test_slots_that_take_work_are_ready_whether_busy_or_not() -> None:
    one = taking("a", 4, 4, 2)
    seen = but(working(one), "a.0", busy=3)

    assert slots(looked(fleet(one), seen)) == (10, 0, 0, 0)
    assert looked(fleet(one), seen).sample.busy == 3


def test_a_replica_on_its_way_up_is_starting_with_or_without_a_process() -> None:
    one = taking("a", 4, 4)

    assert slots(changed(one, state=State.STARTING, slots=0)) == (4, 4, 0, 0)
    assert slots(changed(one, state=State.STARTING, pid=None, slots=0)) == (4, 4, 0, 0)


def test_a_replica_that_leaves_holds_its_slots_until_it_is_gone() -> None:
    one = taking("a", 4, 4)

    assert slots(changed(one, state=State.DRAINING, busy=1)) == (4, 0, 4, 0)
    assert slots(changed(one, state=State.DRAINING)) == (4, 0, 4, 0)
    assert slots(changed(one, state=State.STOPPED, pid=None)) == (4, 0, 0, 0)


def test_slots_of_a_parked_replica_are_kept_apart() -> None:
    assert slots(changed(taking("a", 4, 4), state=State.FAILED, pid=None)) == (4, 0, 0, 4)


def test_between_an_order_and_its_effect_slots_come_or_go() -> None:
    one = taking("a", 8)

    assert slots(changed(one, slots=5)) == (5, 3, 0, 0)
    assert slots(changed(one, slots=12)) == (8, 0, 4, 0)


def test_tasks_beyond_the_slots_of_a_shrunk_replica_drain() -> None:
    one = taking("a", 3)

    assert slots(changed(one, slots=3, busy=5)) == (3, 0, 2, 0)


def test_slots_that_were_given_up_while_busy_are_there_when_they_are_wanted_again() -> None:
    """Told 3 while 5 were busy, then told 8: five are there, not three and two more."""
    assert slots(changed(taking("a", 8), slots=3, busy=5)) == (5, 3, 0, 0)


def test_what_the_controller_holds_is_leaving() -> None:
    one = taking("a", 4, 4)

    assert slots(changed(one, held=True, state=State.DRAINING, busy=2)) == (4, 0, 4, 0)
    assert slots(changed(one, held=True, busy=2)) == (4, 0, 4, 0), "told so a moment ago"


@pytest.mark.parametrize("drained", ["a.0", "a"])
def test_what_a_person_holds_keeps_its_slots(drained: str) -> None:
    one = taking("a", 4, 4)
    seen = but(working(one), "a.0", held=True, state=State.DRAINING)

    assert slots(looked(fleet(one, drained=frozenset({drained})), seen)) == (8, 0, 0, 0)


def test_a_command_has_the_slots_that_its_capacity_says() -> None:
    spec = WorkerSpec("command", "shop", "a", command=("rq", "worker"))
    one = group("a", 3, 3, spec=spec, capacity_slots=3)

    assert slots(looked(fleet(one), running(one))) == (6, 0, 0, 0)
    assert slots(looked(fleet(one), but(running(one), "a.1", state=State.FAILED, pid=None))) == (3, 0, 0, 3)


def test_other_groups_do_not_count() -> None:
    one, other = taking("a", 4), taking("b", 9)
    seen = but(working(one, other), "b.0", busy=9, processed=50, reserved=20)

    measured = looked(fleet(one, other), seen, at_broker({"mail": 0}, {}, held={"b.0": 20, "b.7": 5}))

    assert slots(measured) == (4, 0, 0, 0)
    assert (measured.sample.busy, measured.sample.queue, measured.sample.completions) == (0, 0, 0)


@st.composite
def replicas(draw: st.DrawFn) -> ObservedReplica:
    """One replica of a group whose full replicas have eight slots, in any state."""
    (seen,) = running(taking("a", draw(st.integers(1, 8)))).replicas.values()
    state = draw(st.sampled_from(State))
    lives = state not in (State.STOPPED, State.FAILED) and (state is not State.STARTING or draw(st.booleans()))
    works = state in (State.READY, State.DRAINING)
    return replace(
        seen,
        index=draw(st.integers(0, 99)),
        state=state,
        pid=7 if lives else None,
        slots=draw(st.integers(1, 12)) if works else 0,
        busy=draw(st.integers(0, 12)) if works else 0,
        held=works and draw(st.booleans()),
        counts=lives and draw(st.booleans()),
    )


@given(st.lists(replicas(), max_size=6), st.sets(st.sampled_from(["a.0", "a.1", "a"])))
def test_every_slot_is_counted_once(seen: list[ObservedReplica], drained: set[str]) -> None:
    one = taking("a", 8)
    observed = Observed("shop", up=True, replicas={replica.name: replica for replica in seen})
    there = [
        max(replica.target_slots, replica.slots, replica.busy)
        for replica in observed.replicas.values()
        if replica.running or replica.state in (State.STARTING, State.FAILED)
    ]

    assert sum(slots(looked(fleet(one, drained=frozenset(drained)), observed))) == sum(there)


# what waits


def test_what_waits_in_all_its_queues_is_added_up() -> None:
    one = taking("a", 4, queues=("mail", "news"))

    assert looked(fleet(one), working(one), at_broker({"mail": 3, "news": 4}, {})).sample.queue == 7


@pytest.mark.parametrize("waiting", [{"mail": 3}, {"mail": 3, "news": None}])
def test_a_queue_that_does_not_tell_makes_the_sum_unknown(waiting: dict[str, int | None]) -> None:
    one = taking("a", 4, queues=("mail", "news"))
    sample = looked(fleet(one), working(one), at_broker(waiting, {})).sample

    assert sample.queue is None
    assert sample.missing == ("queue",)


def test_a_group_without_queues_waits_for_nobody_knows_what() -> None:
    one = taking("a", 4, queues=())

    assert looked(fleet(one), working(one), EMPTY).sample.missing == ("queue",)


@given(st.integers(0, 10_000), st.integers(1, 7))
def test_a_shared_queue_is_divided_without_loss(waiting: int, sharers: int) -> None:
    groups = [taking(f"g{number}", 1) for number in range(sharers)]
    found = measure(
        [one.name for one in groups],
        fleet(*groups),
        working(*groups),
        at_broker({"mail": waiting}, {}),
        meters={},
        now=NOW,
    )
    parts = [measured.sample.queue or 0 for measured in found.values()]

    assert sum(parts) == waiting
    assert max(parts) - min(parts) <= 1


def test_who_takes_from_a_queue_counts_whether_it_moves_or_not() -> None:
    one, other = taking("a", 4), taking("still", 4)

    assert looked(fleet(one, other), working(one, other), at_broker({"mail": 10}, {})).sample.queue == 5


def test_messages_that_wait_in_workers_wait() -> None:
    one = taking("a", 2, 2)
    seen = but(but(working(one), "a.0", busy=2, reserved=5), "a.1", busy=1, reserved=1)

    assert looked(fleet(one), seen, at_broker({"mail": 4}, {})).sample.queue == 4 + 3


def test_messages_of_a_worker_that_died_wait() -> None:
    one = taking("a", 2, 2)
    seen = but(working(one), "a.0", busy=2, reserved=2)
    backlog = at_broker({"mail": 4}, {}, held={"a.0": 2, "a.1": 3, "a.9": 1})

    assert looked(fleet(one), seen, backlog).sample.queue == 4 + 3 + 1


def test_messages_of_dead_workers_bring_a_group_back_from_zero() -> None:
    one = taking("a")
    backlog = at_broker({"mail": 0}, {}, held={"a.0": 3, "b.0": 5, "by-hand": 7})

    assert looked(fleet(one), working(one), backlog).sample.queue == 3


def test_messages_acknowledged_at_the_start_hide_none_that_wait() -> None:
    """The broker holds two for a worker that runs two others: those were acknowledged when they began."""
    one = taking("a", 2)
    seen = but(working(one), "a.0", busy=2, reserved=4)

    assert looked(fleet(one), seen, at_broker({"mail": 0}, {}, held={"a.0": 2})).sample.queue == 2


@given(st.integers(0, 20), st.integers(0, 20), st.dictionaries(st.sampled_from(["a.0", "a.1"]), st.integers(0, 20)))
def test_what_waits_is_never_less_than_the_queue_says(busy: int, reserved: int, held: dict[str, int]) -> None:
    one = taking("a", 20)
    seen = but(working(one), "a.0", busy=busy, reserved=reserved)
    queue = looked(fleet(one), seen, at_broker({"mail": 4}, {}, held=held)).sample.queue

    assert queue is not None
    assert queue >= 4


# how long


def test_the_oldest_message_of_all_its_queues_counts() -> None:
    one = taking("a", 4, queues=("mail", "news"))
    sent_at = {"mail": NOW - 2.0, "news": NOW - 7.5}

    assert looked(fleet(one), working(one), at_broker({}, sent_at)).sample.oldest_age_seconds == 7.5
    assert looked(fleet(one), working(one), at_broker({}, {**sent_at, "news": None})).sample.oldest_age_seconds == 2.0


def test_nobody_knows_the_age_of_what_carries_no_time() -> None:
    one = taking("a", 4)

    assert looked(fleet(one), working(one), at_broker({"mail": 9}, {"mail": None})).sample.oldest_age_seconds is None


def test_a_senders_clock_that_is_ahead_makes_no_negative_age() -> None:
    one = taking("a", 4)

    assert looked(fleet(one), working(one), at_broker({"mail": 9}, {"mail": NOW + 60})).sample.oldest_age_seconds == 0.0


# counters


def test_the_counters_of_a_group_are_those_of_its_replicas_together() -> None:
    one = taking("a", 2, 2)
    seen = but(working(one), "a.0", processed=10, busy_seconds=20.0)
    sample = looked(fleet(one), but(seen, "a.1", processed=5, busy_seconds=1.5)).sample

    assert (sample.completions, sample.busy_seconds) == (15, 21.5)
    assert sample.missing == ()


def test_a_worker_that_keeps_no_count_leaves_the_group_unseen() -> None:
    one = taking("a", 2, 2)
    sample = looked(fleet(one), but(working(one), "a.1", counts=False)).sample

    assert sample.missing == ("completions", "busySeconds")
    assert sample.ready == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"state": State.STARTING},
        {"state": State.STOPPED, "pid": None},
        {"state": State.FAILED, "pid": None},
        {"state": State.DRAINING},
    ],
)
def test_one_that_does_not_work_yet_or_any_more_hides_nothing(fields: dict[str, Any]) -> None:
    one = taking("a", 2, 2)
    seen = but(working(one), "a.0", processed=10, busy_seconds=20.0)

    assert looked(fleet(one), but(seen, "a.1", counts=False, **fields)).sample.completions == 10


def test_a_group_at_zero_is_seen() -> None:
    one = taking("a")

    assert looked(fleet(one), working(one)).sample.missing == ()


def test_counters_do_not_go_back_when_replicas_restart_and_leave() -> None:
    one = taking("a", 2, 2)
    first = but(but(working(one), "a.0", processed=10, busy_seconds=20.0), "a.1", processed=4, busy_seconds=4.0)
    restarted = but(first, "a.0", pid=999, processed=1, busy_seconds=0.5)

    measured = looked(fleet(one), first)
    seen = [measured.sample]
    for observed in (restarted, lacking(restarted, "a.1"), restarted):
        measured = looked(fleet(one), observed, meters={"a": measured.meter})
        seen.append(measured.sample)

    assert [sample.completions for sample in seen[:3]] == [14, 15, 15]
    assert [sample.busy_seconds for sample in seen[:3]] == [24.0, 24.5, 24.5]


@pytest.mark.parametrize("state", [State.READY, State.STARTING, State.UNKNOWN])
def test_a_record_that_could_not_be_read_once_is_not_counted_twice(state: State) -> None:
    one = taking("a", 2, 2)
    seen = but(but(working(one), "a.0", processed=1000, busy_seconds=900.0), "a.1", processed=10, busy_seconds=9.0)
    measured = looked(fleet(one), seen)
    for observed in (but(seen, "a.0", state=state, counts=False), but(seen, "a.0", processed=1001)):
        measured = looked(fleet(one), observed, meters={"a": measured.meter})

    assert measured.sample.completions == 1011


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a.0", "a.1"]), st.tuples(st.integers(1, 3), st.integers(0, 50)), max_size=2),
        max_size=8,
    )
)
def test_whatever_comes_restarts_and_goes_counters_only_grow(looks: list[dict[str, tuple[int, int]]]) -> None:
    """Each look: replica -> (its process, what that one has counted)."""
    one = taking("a", 2, 2)
    meters: dict[str, Meter] = {}
    before = (0, 0.0)
    for look in looks:
        replicas = {
            name: replace(working(one).replicas[name], pid=pid, processed=done, busy_seconds=done / 4)
            for name, (pid, done) in look.items()
        }
        measured = looked(fleet(one), Observed("shop", up=True, replicas=replicas), meters=meters)
        now = (measured.sample.completions or 0, measured.sample.busy_seconds or 0.0)
        meters = {"a": measured.meter}
        assert now >= before
        assert now[1] >= before[1]
        before = now


def test_what_was_counted_survives_a_controller_that_was_killed() -> None:
    one = taking("a", 2)
    measured = looked(fleet(one), but(working(one), "a.0", processed=10, busy_seconds=20.0))
    again = decoded(Meter, measured.meter.to_json())
    later = looked(fleet(one), but(working(one), "a.0", processed=12, busy_seconds=21.0), meters={"a": again})

    assert later.sample.completions == 12
