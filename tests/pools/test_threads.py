"""What only the threads pool promises."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from pathlib import Path

import pytest

from pools import Handle, HardTimeLimit, Killed, SoftTimeLimit, Terminated, get_pool
from pools.raise_in_thread import Interruptible
from tests.conftest import PATIENCE, eventually
from tests.limits import struck_inside
from tests.pools import tasks


def test_a_slot_past_its_hard_limit_stays_taken_until_the_task_returns() -> None:
    """A task in C code cannot be interrupted: it is given up, and what it returns later is dropped."""
    gate = threading.Lock()
    gate.acquire()
    told: list[Handle] = []
    pool = get_pool("threads", 1, on_hard_timeout=told.append)

    def hard_limit(seconds: float) -> Handle | None:
        told.clear()
        handle = pool.apply_async(gate.acquire, timeout_seconds=seconds)
        with pytest.raises(HardTimeLimit):
            handle.result(PATIENCE)
        eventually(lambda: told == [handle])
        return handle if handle.abandoned else None

    stuck = struck_inside(hard_limit)
    next_one = pool.apply_async(tasks.add, (1,))
    assert (pool.busy_slots, next_one.done) == (1, False)
    gate.release()

    assert next_one.result(PATIENCE) == 1
    assert isinstance(stuck.error, HardTimeLimit)
    pool.stop()


def test_an_interruption_before_the_task_begins_is_raised_as_it_begins() -> None:
    thread, task = Interruptible(), object()
    ran: list[int] = []
    thread.expect(task)
    assert thread.interrupt(task, SoftTimeLimit("early"))

    value, failure = thread.call(task, ran.append, (1,), {})

    assert isinstance(failure, SoftTimeLimit)
    assert (value, str(failure), ran) == (None, "early", [])
    assert not thread.interrupt(task, Killed()), "it is over"
    assert thread.call(object(), tasks.add, (1, 1), {}) == (2, None)


def test_stop_does_not_wait_for_a_task_that_was_given_up() -> None:
    gate = threading.Lock()
    gate.acquire()

    def stopped_past_the_limit(seconds: float) -> Handle | None:
        pool = get_pool("threads", 2)
        stuck = pool.apply_async(gate.acquire, timeout_seconds=seconds)
        other = pool.apply_async(tasks.nap, (0.1,))
        pool.stop()
        assert other.done
        return stuck if stuck.abandoned else None

    assert struck_inside(stopped_past_the_limit)
    gate.release()


@pytest.mark.usefixtures("unhurried_ends")
def test_a_task_at_its_hard_limit_is_interrupted_and_its_slot_is_free_again() -> None:
    told: list[Handle] = []
    pool = get_pool("threads", 1, on_hard_timeout=told.append)

    handle = pool.apply_async(tasks.nap, (60,), timeout_seconds=0.05)

    with pytest.raises(HardTimeLimit, match=r"0\.05 s"):
        handle.result(PATIENCE)
    assert not handle.abandoned
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1
    assert told == [handle]
    pool.stop()


@pytest.mark.usefixtures("unhurried_ends")
def test_except_exception_does_not_stop_an_end() -> None:
    def stubborn() -> None:
        while True:
            try:
                tasks.nap(60)
            except Exception:
                continue

    pool = get_pool("threads", 1)
    handle = pool.apply_async(stubborn, timeout_seconds=0.05)

    with pytest.raises(HardTimeLimit):
        handle.result(PATIENCE)
    assert not handle.abandoned
    pool.stop()


def test_a_task_that_swallows_its_end_is_given_up(tmp_path: Path) -> None:
    begun = threading.Event()

    def swallow() -> None:
        while not (tmp_path / "gate").exists():
            try:
                begun.set()
                tasks.nap(60)
            except BaseException:
                tasks.mark(str(tmp_path / "swallowed"))

    pool = get_pool("threads", 1)
    handle = pool.apply_async(swallow)
    assert begun.wait(PATIENCE)
    assert pool.terminate_job(handle)

    with pytest.raises(Terminated):
        handle.result(PATIENCE)
    assert tasks.lines(tmp_path / "swallowed") == ["x"]
    assert handle.abandoned
    pool.terminate()


@pytest.mark.usefixtures("unhurried_ends")
def test_an_end_follows_a_soft_limit_that_was_caught() -> None:
    seen: list[str] = []

    def task() -> None:
        try:
            tasks.nap(60)
        except SoftTimeLimit:
            seen.append("soft")
        try:
            tasks.nap(60)
        except Killed:
            seen.append("killed")
            raise

    pool = get_pool("threads", 1)

    def soft_limit(seconds: float) -> Handle | None:
        handle = pool.apply_async(task, soft_timeout_seconds=seconds)
        eventually(lambda: seen == ["soft"] or handle.done)
        return handle if seen else None

    handle = struck_inside(soft_limit)
    assert pool.terminate_job(handle)

    with pytest.raises(Terminated):
        handle.result(PATIENCE)
    assert seen == ["soft", "killed"]
    pool.stop()


def test_thousands_of_quick_tasks_at_their_limit_never_harm_the_next() -> None:
    """The limit strikes before, at and after the end of its task; what runs next in that thread never sees it."""
    struck: list[Handle] = []
    pool = get_pool("threads", 2, on_soft_timeout=struck.append)
    limited, innocent = [], []

    for _ in range(2000):
        limited.append(pool.apply_async(tasks.busy_for, (0.001,), soft_timeout_seconds=0.001))
        innocent.append(pool.apply_async(tasks.busy_for, (0.0005,)))

    assert [handle.result(PATIENCE) for handle in innocent] == [0.0005] * 2000
    for handle in limited:
        pool.wait(handle, PATIENCE)
    assert {type(handle.error) for handle in limited} <= {type(None), SoftTimeLimit}
    assert pool.num_processes == 2
    pool.stop()
    assert struck


def test_an_interruption_stays_within_its_task() -> None:
    """The mechanism alone, with a stranger who interrupts at every moment there is."""
    ready, over = threading.Event(), threading.Event()
    current: list[int] = [-1]
    made: list[Interruptible] = []
    ends: list[BaseException | None] = []
    escaped: list[BaseException] = []

    def work() -> None:
        thread = Interruptible()
        made.append(thread)
        ready.set()
        try:
            for number in range(3000):
                current[0] = number
                _, failure = thread.call(number, tasks.busy_for, (0.0001,), {})
                ends.append(failure)
        except BaseException as error:
            escaped.append(error)
        over.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert ready.wait(PATIENCE)
    hits = 0
    while not over.is_set():
        for error in (SoftTimeLimit(), Killed()):
            hits += made[0].interrupt(current[0], error)
        time.sleep(0.0002)
    worker.join()

    assert escaped == []
    assert len(ends) == 3000
    assert hits > 0
    assert {type(failure) for failure in ends} <= {type(None), SoftTimeLimit, Killed}


def test_growing_right_after_shrinking_keeps_every_slot() -> None:
    pool = get_pool("threads", 3)
    pool.start()
    for _ in range(50):
        pool.shrink(2)
        pool.grow(2)

    barrier = threading.Barrier(3)
    handles = [pool.apply_async(barrier.wait, (20,)) for _ in range(3)]
    for handle in handles:
        handle.result(PATIENCE)
    assert pool.num_processes == 3
    pool.stop()
    eventually(lambda: pool.num_processes == 0)


@pytest.mark.usefixtures("unhurried_ends")
def test_terminate_ends_what_runs_and_takes_back_what_waits(tmp_path: Path) -> None:
    pool = get_pool("threads", 1)
    running = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"),))
    waiting = pool.apply_async(tasks.add, (1,))
    eventually(lambda: pool.busy_slots == 1)

    pool.terminate()

    for handle in (running, waiting):
        with pytest.raises(Terminated):
            handle.result()
    assert not running.abandoned
    eventually(lambda: pool.num_processes == 0)


def test_terminate_gives_up_a_task_that_cannot_be_ended() -> None:
    gate = threading.Lock()
    gate.acquire()
    begun: list[int] = []

    def acquire() -> None:
        begun.append(threading.get_ident())
        gate.acquire()

    def acquires() -> bool:
        frame = sys._current_frames()[begun[0]] if begun else None
        return frame is not None and frame.f_lineno == acquire.__code__.co_firstlineno + 2

    pool = get_pool("threads", 1)
    stuck = pool.apply_async(acquire)
    eventually(acquires)

    pool.terminate()

    assert stuck.abandoned
    with pytest.raises(Terminated):
        stuck.result()
    gate.release()


@pytest.mark.usefixtures("unhurried_ends")
def test_an_interrupted_task_leaves_no_lock_of_logging_behind() -> None:
    """A handler takes its lock in one statement and enters its ``try`` in the next: a limit may strike in between."""
    handler = logging.StreamHandler(io.StringIO())
    taken = threading.Event()

    def is_struck_inside_logging() -> None:
        handler.acquire()
        taken.set()
        while True:
            time.sleep(0.01)

    with get_pool("threads", 1) as pool:
        struck = pool.apply_async(is_struck_inside_logging)
        assert taken.wait(PATIENCE)
        assert pool.terminate_job(struck)
        with pytest.raises(Terminated):
            struck.result(PATIENCE)
        assert pool.apply_async(tasks.add, (1, 2)).result(PATIENCE) == 3
        assert handler.lock is not None
        assert handler.lock.acquire(timeout=PATIENCE), "everybody who logs would stand still from now on"
        handler.lock.release()
