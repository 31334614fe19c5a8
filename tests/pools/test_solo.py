"""What only the solo pool promises: it is nothing but a call in this very thread."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from pools import HardTimeLimit, PoolError, SoftTimeLimit, get_pool
from pools.solo import SoloPool
from tests.limits import struck_inside
from tests.pools import tasks


def test_a_task_runs_in_the_calling_thread() -> None:
    handle = get_pool("solo").apply_async(threading.get_ident)

    assert handle.done
    assert (handle.value, handle.pid) == (threading.get_ident(), os.getpid())


def test_a_task_may_fork() -> None:
    assert get_pool("solo").apply_async(tasks.fork_and_wait).result() == 5


def test_a_task_may_start_a_pool_of_its_own() -> None:
    assert get_pool("solo").apply_async(tasks.nested_pool).result() == 30


def test_a_keyboard_interrupt_goes_through_to_the_worker() -> None:
    class Interrupted(KeyboardInterrupt):
        pass

    def task() -> None:
        raise Interrupted

    pool = get_pool("solo")
    ended: list[object] = []
    with pytest.raises(Interrupted):
        pool.apply_async(task, callback=ended.append)
    assert len(ended) == 1
    assert (pool.busy_slots, pool.free_slots) == (0, 1)
    assert pool.apply_async(tasks.add, (1,)).result() == 1


def test_the_alarm_clock_is_given_back_as_it_was() -> None:
    rung: list[int] = []
    earlier = signal.signal(signal.SIGALRM, lambda signum, frame: rung.append(signum))
    try:
        signal.setitimer(signal.ITIMER_REAL, 600)

        def caught(seconds: float) -> object:
            try:
                return get_pool("solo").apply_async(tasks.until_soft_limit, soft_timeout_seconds=seconds).result()
            except SoftTimeLimit:  # before it came to its ``try``
                return None

        assert struck_inside(caught) == "cleaned up"
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 0 < left <= 600
        signal.raise_signal(signal.SIGALRM)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def test_without_an_owner_the_hard_limit_is_raised_in_the_task() -> None:
    pool = get_pool("solo")

    handle = pool.apply_async(tasks.busy_for, (60,), timeout_seconds=0.05)
    with pytest.raises(HardTimeLimit):
        handle.result()

    def both(seconds: float) -> HardTimeLimit | None:
        handle = pool.apply_async(_ignore_the_soft_limit, soft_timeout_seconds=seconds, timeout_seconds=2 * seconds)
        try:
            return pytest.fail(str(handle.result()))
        except SoftTimeLimit:  # before it came to its ``try``
            return None
        except HardTimeLimit as error:
            return error

    assert struck_inside(both)


def _ignore_the_soft_limit() -> None:
    try:
        time.sleep(60)
    except SoftTimeLimit:
        time.sleep(60)


def test_the_owner_is_told_of_the_hard_limit_while_the_task_runs() -> None:
    told = threading.Event()
    where: list[bool] = []
    pool = get_pool(
        "solo",
        on_hard_timeout=lambda handle: (where.append(handle.done), told.set()),
        on_soft_timeout=lambda handle: None,
    )

    for _ in range(3):
        told.clear()
        handle = pool.apply_async(told.wait, (20,), timeout_seconds=0.05)
        assert handle.result() is True
    assert where == [False] * 3
    pool.stop()


def test_the_owner_is_asked_to_end_the_task() -> None:
    asked: list[tuple[str, int]] = []
    pool = get_pool("solo", on_terminate_job=lambda handle, signum: asked.append((handle.id, signum)))

    pool.apply_async(lambda: pool.terminate_job(os.getpid(), signal.SIGTERM), id="me")

    assert asked == [("me", signal.SIGTERM)]
    refused = get_pool("solo")
    with pytest.raises(PoolError, match="from inside"):
        refused.apply_async(lambda: refused.terminate_job(os.getpid())).result()


def test_a_limit_outside_of_the_main_thread_is_refused() -> None:
    refused: list[Exception] = []

    def run() -> None:
        try:
            SoloPool().apply_async(tasks.add, (1,), soft_timeout_seconds=1)
        except PoolError as error:
            refused.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert "main thread" in str(refused[0])


def test_limits_are_more_than_nothing() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        get_pool("solo").apply_async(tasks.add, (1,), timeout_seconds=0)
