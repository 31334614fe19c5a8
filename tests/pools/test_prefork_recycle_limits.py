"""What a child of the prefork pool may use up: tasks, age, memory; and how it is replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pools import (
    BasePool,
    EventLoop,
    HandleState,
    HardTimeLimit,
    MemoryLimit,
    PoolError,
    SlotLost,
    SoftTimeLimit,
    get_pool,
)
from pools.prefork.recycle_limits import CEILING, RecycleLimits, resident_bytes
from tests.conftest import PATIENCE, eventually
from tests.limits import struck_inside
from tests.pools import tasks
from tests.pools.test_contract import turn_until

Make = Callable[..., BasePool]

every_method = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


def pids(pool: BasePool) -> list[int]:
    return list(pool.info["processes"])


def ready(pool: BasePool) -> None:
    turn_until(pool, lambda: pool.free_slots == pool.limit)


# -- the part of one child


def test_each_child_may_use_up_to_a_tenth_less_by_chance() -> None:
    asked = RecycleLimits(tasks=1000, seconds=3600.0, memory_bytes=1 << 30)

    parts = [asked.for_one_child() for _ in range(200)]

    for field in ("tasks", "seconds", "memory_bytes"):
        values = [getattr(part, field) for part in parts]
        most = getattr(asked, field)
        assert max(values) <= most
        assert min(values) >= most * 0.9 - 1
        assert len(set(values)) > 20


def test_small_numbers_of_tasks_stay_exact_and_no_limit_stays_none() -> None:
    assert {RecycleLimits(tasks=9).for_one_child() for _ in range(50)} == {RecycleLimits(tasks=9)}
    assert RecycleLimits().for_one_child() == RecycleLimits()
    assert RecycleLimits().ceiling_bytes is None


def test_the_memory_of_a_process_that_is_gone_is_nothing() -> None:
    assert resident_bytes(os.getpid()) > 1 << 20
    assert resident_bytes(1 << 22) == 0


# -- age


@every_method
def test_an_idle_child_is_replaced_at_its_age(make_pool: Make, method: str) -> None:
    pool = make_pool("prefork+loop", 2, start_method=method, max_age_per_child_seconds=0.5)
    ready(pool)
    first = set(pids(pool))

    turn_until(pool, lambda: not first & set(pids(pool)) and pool.free_slots == 2)

    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


def test_a_child_of_age_finishes_its_task_and_the_next_one_is_there_already(make_pool: Make, tmp_path: Path) -> None:
    pool = make_pool("prefork+loop", 1, max_age_per_child_seconds=0.3)
    gate = tmp_path / "gate"
    running = pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started")))
    turn_until(pool, lambda: tasks.lines(tmp_path / "started"))

    turn_until(pool, lambda: [entry["state"] for entry in pool.info["slots"]].count("idle") == 1)
    assert not running.done
    gate.touch()

    old = running.result(PATIENCE)
    assert pool.free_slots == 1  # its successor, at once
    assert pool.apply_async(os.getpid).result(PATIENCE) != old


def test_ages_go_on_under_another_loop(make_pool: Make, loop: EventLoop) -> None:
    pool = make_pool("prefork", 1, max_age_per_child_seconds=1.0)
    first = pool.apply_async(os.getpid).result(PATIENCE)

    pool.register_with_event_loop(loop)

    turn_until(pool, lambda: pids(pool) and first not in pids(pool))


def test_a_pool_without_processes_refuses_an_age() -> None:
    with pytest.raises(PoolError, match="recycle its slots by age"):
        get_pool("threads", 2, max_age_per_child_seconds=60.0)
    with pytest.raises(ValueError, match="more than 0"):
        get_pool("prefork", 2, max_age_per_child_seconds=0.0)


# -- memory


@every_method
def test_a_task_that_eats_memory_is_killed_at_the_ceiling_and_told(
    make_pool: Make, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit = resident_bytes(os.getpid()) + (50 << 20)
    pool = make_pool("prefork+loop", 2, start_method=method, max_memory_per_child_bytes=limit)
    ready(pool)

    eater = pool.apply_async(tasks.eat)
    others = [pool.apply_async(tasks.add, (number,)) for number in range(20)]

    with pytest.raises(MemoryLimit, match=f"its limit is {limit >> 20} MiB"):
        eater.result(PATIENCE)
    assert "grew to" in caplog.text
    assert [handle.result(PATIENCE) for handle in others] == list(range(20))
    ready(pool)
    assert eater.pid not in pids(pool)


def test_a_task_over_the_limit_but_under_the_ceiling_ends_well(make_pool: Make) -> None:
    own = resident_bytes(os.getpid())
    pool = make_pool("prefork+loop", 1, max_memory_per_child_bytes=own + (40 << 20))
    ready(pool)

    fat = pool.apply_async(tasks.hoard_a_while, (80 << 20, 0.6)).result(PATIENCE)

    assert CEILING * (own + (40 << 20)) > own + (80 << 20)
    turn_until(pool, lambda: fat not in pids(pool) and pool.free_slots == 1)


def test_memory_given_back_costs_no_child(make_pool: Make) -> None:
    own = resident_bytes(os.getpid())
    pool = make_pool("prefork+loop", 1, max_memory_per_child_bytes=own + (60 << 20))

    # The peak is far over the limit, the memory in use afterwards is not.
    ran_in = {pool.apply_async(tasks.borrow, (100 << 20,)).result(PATIENCE) for _ in range(3)}

    assert len(ran_in) == 1


def test_memory_is_watched_under_another_loop_too(make_pool: Make, loop: EventLoop, tmp_path: Path) -> None:
    limit = resident_bytes(os.getpid()) + (50 << 20)
    pool = make_pool("prefork", 1, max_memory_per_child_bytes=limit)
    gate = tmp_path / "gate"
    eater = pool.apply_async(tasks.eat, (str(gate),))
    eventually(lambda: eater.state is HandleState.RUNNING)

    pool.register_with_event_loop(loop)
    gate.touch()

    with pytest.raises(MemoryLimit):
        eater.result(PATIENCE)


def test_memory_is_watched_without_a_loop_of_the_program(make_pool: Make) -> None:
    limit = resident_bytes(os.getpid()) + (50 << 20)
    pool = make_pool("prefork", 1, max_memory_per_child_bytes=limit)

    with pytest.raises(MemoryLimit):
        pool.apply_async(tasks.eat).result(PATIENCE)


# -- code that cannot be reached


@every_method
def test_a_task_stuck_in_c_ends_at_its_hard_limit(make_pool: Make, method: str, tmp_path: Path) -> None:
    pool = make_pool("prefork+loop", 1, start_method=method, initializer=tasks.initialize, initargs=("imported",))
    ready(pool)
    started = tmp_path / "started"

    def under_a_limit(seconds: float) -> list[str] | None:
        soft, hard = 10 * seconds, 20 * seconds
        handle = pool.apply_async(tasks.compute_in_c, (str(started),), soft_timeout_seconds=soft, timeout_seconds=hard)
        try:
            return pytest.fail(handle.result(10 * PATIENCE))
        except SoftTimeLimit:  # before it was in C code
            return None
        except HardTimeLimit:
            return tasks.lines(started) or None

    assert struck_inside(under_a_limit)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


def test_a_kill_from_outside_hints_at_the_kernel(make_pool: Make) -> None:
    with pytest.raises(SlotLost, match="SIGKILL") as lost:
        make_pool("prefork+loop").apply_async(tasks.die, (int(signal.SIGKILL),)).result(PATIENCE)
    assert "out-of-memory" in lost.value.hint
