"""How many messages a worker takes ahead of its free slots, and what becomes of them when a task turns out long."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.spec import TaskPolicy
from fleet.worker.lifecycle import Event, State
from fleet.worker.loop import starting
from fleet.worker.loop.look_ahead import LookAhead
from tests.conftest import PATIENCE, eventually
from tests.worker.loop.test_consumer import Make, World, counts, make, note, ran, waits

__all__ = ["make"]

QUICK = 1e-4
RUNS = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1)), max_size=80)


def ahead(**policy: Any) -> LookAhead:
    return LookAhead(TaskPolicy(**policy))


# -- how many


def test_nothing_is_taken_ahead_of_tasks_that_are_not_known() -> None:
    look = ahead()
    assert (look.count, look.is_quick("t")) == (0, False)


def test_quick_tasks_raise_the_number_one_by_one() -> None:
    look = ahead(look_ahead_most=3)
    counts = []
    for _ in range(5):
        look.note("t", QUICK)
        counts.append(look.count)
    assert counts == [1, 2, 3, 3, 3]
    assert look.is_quick("t")


def test_no_more_is_taken_than_is_done_within_the_span() -> None:
    look = ahead(look_ahead_seconds=0.01)
    for _ in range(100):
        look.note("t", 0.002)
    assert look.count == 5


def test_one_long_task_ends_it_at_once_and_quick_ones_begin_it_again() -> None:
    look = ahead()
    for _ in range(50):
        look.note("t", QUICK)
    look.note("t", 10.0)
    assert (look.count, look.is_quick("t")) == (0, False)
    for _ in range(40):
        look.note("t", QUICK)
    assert look.count > 0
    assert look.is_quick("t")


@pytest.mark.parametrize("policy", [{"look_ahead_most": 0}, {"prefetch": 4}])
def test_it_is_off_where_people_say_so(policy: dict[str, Any]) -> None:
    look = ahead(**policy)
    for _ in range(50):
        look.note("t", QUICK)
    assert look.count == 0


@given(runs=RUNS, last=st.floats(0.0101, 1e9))
def test_after_a_long_task_nothing_is_taken_ahead_whatever_came_before(
    runs: list[tuple[str, float]], last: float
) -> None:
    look = ahead()
    for name, seconds in runs:
        look.note(name, seconds)
        assert 0 <= look.count <= 64
    look.note("a", last)
    assert look.count == 0
    assert not look.is_quick("a")


# -- in the loop


def warm(world: World, *, most: int = 8) -> None:
    """Run quick tasks until a good many are taken ahead."""
    number = 0
    while world.parts.look_ahead.count < most:
        world.channel.put("note", -1)
        number += 1
        world.until(lambda: len(world.channel.acked) == number)  # noqa: B023
    ran.clear()
    world.channel.acked.clear()
    world.channel.asked.clear()


def test_quick_tasks_come_many_at_a_time_and_run_in_order(make: Make) -> None:
    world = make(look_ahead_seconds=PATIENCE)
    warm(world)
    for number in range(9):
        world.channel.put("note", number)
    world.until(lambda: len(world.channel.acked) == 9)
    assert ran == list(range(9))
    assert world.channel.asked.count(1) <= 3  # the last of them found an empty queue


def test_the_process_is_looked_at_thoroughly_once_after_quick_tasks_and_after_each_other(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "INLINE_SECONDS", PATIENCE)  # however slow the machine
    world = make(look_ahead_seconds=PATIENCE)
    warm(world)
    looks: list[str] = []
    world.parts.submission.after_quick = lambda: looks.append("brief")
    world.parts.submission.after_inline = lambda: looks.append("thorough")
    note_run = note.function
    monkeypatch.setattr(note, "function", lambda number: (looks.append("note"), note_run(number)))
    monkeypatch.setattr(counts, "function", lambda _: looks.append("not known"))
    for task in (note, note, counts):
        world.channel.put(task.name, 1)
    world.until(lambda: len(world.channel.acked) == 3)
    quick = ["note", "brief", "note", "brief", "thorough"]
    assert looks == [*quick, "not known", "thorough"]


@pytest.mark.parametrize(("keeps_acks", "untold"), [(False, {0}), (True, {0, 1, 2, 3})])
def test_what_is_done_is_told_before_the_next_starts_where_it_would_die_with_the_process(
    make: Make, monkeypatch: pytest.MonkeyPatch, keeps_acks: bool, untold: set[int]
) -> None:
    world = make(look_ahead_seconds=PATIENCE)
    warm(world)
    channel = world.channel
    channel.keeps_acks = keeps_acks
    told: list[int] = []
    found: set[int] = set()
    monkeypatch.setattr(channel, "flush", lambda: told.append(len(channel.acked)))

    def run(number: int) -> None:
        found.add(len(channel.acked) - max(told, default=0))
        ran.append(number)

    monkeypatch.setattr(note, "function", run)
    for number in range(4):
        channel.put("note", number)
    world.until(lambda: len(channel.acked) == 4)
    assert ran == [0, 1, 2, 3]
    assert found == untold


def test_a_task_that_is_not_known_sends_back_what_is_behind_it_before_it_starts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(look_ahead_seconds=PATIENCE)
    warm(world)
    behind: list[int] = []
    monkeypatch.setattr(waits, "function", lambda number, **_: behind.append(len(world.channel.queue)))
    world.channel.put("note", 0)
    world.channel.put("waits", 1)
    for number in (2, 3):
        world.channel.put("note", number)
    world.until(lambda: len(world.channel.acked) == 4)
    assert behind == [2]
    assert ran == [0, 2, 3]


def test_a_quick_task_that_turns_out_long_sends_back_what_is_behind_it_while_it_runs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(look_ahead_seconds=0.05, look_ahead_most=8)
    warm(world)
    left: list[int] = []

    def long(number: int) -> None:
        if number == 0:
            attend_until(world, lambda: len(world.channel.queue) == 3)
            left.append(len(world.channel.held))
        ran.append(number)

    monkeypatch.setattr(note, "function", long)
    for number in range(4):
        world.channel.put("note", number)
    world.until(lambda: len(world.channel.acked) == 4)
    assert left == [1]
    assert ran == [0, 1, 2, 3]


def attend_until(world: World, done: Any) -> None:
    """As the housekeeping thread does, until something holds."""

    def attend() -> None:
        eventually(lambda: world.consumer.attend() and done())

    thread = threading.Thread(target=attend)
    thread.start()
    thread.join(2 * PATIENCE)


def test_a_drain_hands_back_at_once_what_is_behind_the_running_task(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(look_ahead_seconds=PATIENCE, look_ahead_most=8)
    warm(world)

    def drained(number: int) -> None:
        with world.channel.lock:
            world.consumer.on_event(Event.TERM)
        ran.append(number)

    monkeypatch.setattr(note, "function", drained)
    for number in range(4):
        world.channel.put("note", number)
    world.until(lambda: world.parts.life.stopped)
    assert ran == [0]
    assert len(world.channel.queue) == 3
    assert not world.channel.held


def test_revoked_and_expired_tasks_behind_others_do_not_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(look_ahead_seconds=PATIENCE, look_ahead_most=8)
    warm(world)
    ids: list[str] = []

    def revokes(number: int) -> None:
        world.parts.revoked.add(ids[1:2])
        ran.append(number)

    monkeypatch.setattr(note, "function", revokes)
    ids += [world.channel.put("note", number) for number in (0, 1)]
    ids.append(world.channel.put("note", 2, expires=1, now=time.time() - 10))
    ids.append(world.channel.put("note", 3))
    world.until(lambda: len(world.channel.acked) == 4)
    assert ran == [0, 3]


def test_early_acknowledgement_covers_only_what_starts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(look_ahead_seconds=PATIENCE, look_ahead_most=8, acks="early")
    warm(world)
    acked: list[int] = []
    monkeypatch.setattr(note, "function", lambda number: acked.append(len(world.channel.acked)))
    for number in range(4):
        world.channel.put("note", number)
    world.until(lambda: len(acked) == 4)
    assert acked == [1, 2, 3, 4]


def test_what_waits_behind_a_task_is_reserved_and_counted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(look_ahead_seconds=PATIENCE, look_ahead_most=8)
    warm(world)
    seen: list[tuple[int, int, int]] = []

    def look(number: int) -> None:
        world.parts.reporting.publish(deadline=None)
        view = world.view()
        seen.append((view.busy, view.waiting, len(world.parts.inflight.waiting)))

    monkeypatch.setattr(note, "function", look)
    for number in range(3):
        world.channel.put("note", number)
    world.until(lambda: len(world.channel.acked) == 3)
    assert seen == [(1, 2, 2), (1, 1, 1), (1, 0, 0)]


def test_what_finds_no_slot_in_time_goes_back_from_a_pool_of_many(make: Make) -> None:
    world = make("threads", 1, look_ahead_seconds=0.05, look_ahead_most=8)
    warm(world, most=4)
    world.channel.put("waits", 0)
    for number in range(3):
        world.channel.put("note", number)
    world.until(lambda: len(world.parts.inflight.running) == 1)
    world.until(lambda: len(world.channel.queue) == 3)
    assert len(world.channel.held) == 1
    assert world.parts.life.state is State.READY
