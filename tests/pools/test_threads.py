"""What only the threads pool promises."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pools import HardTimeLimit, get_pool
from tests.conftest import eventually
from tests.pools import tasks


def test_a_slot_past_its_hard_limit_stays_taken_until_the_task_returns(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pool = get_pool("threads", 1)
    stuck = pool.apply_async(tasks.wait_for, (str(gate),), timeout_seconds=0.05)
    next_one = pool.apply_async(tasks.add, (1,))

    with pytest.raises(HardTimeLimit):
        stuck.result(20)
    assert (pool.busy_slots, next_one.done) == (1, False)
    gate.touch()

    assert next_one.result(20) == 1
    assert isinstance(stuck.error, HardTimeLimit)
    pool.stop()


def test_growing_right_after_shrinking_keeps_every_slot() -> None:
    pool = get_pool("threads", 3)
    pool.start()
    for _ in range(50):
        pool.shrink(2)
        pool.grow(2)

    barrier = threading.Barrier(3)
    handles = [pool.apply_async(barrier.wait, (20,)) for _ in range(3)]
    for handle in handles:
        handle.result(30)
    assert pool.num_processes == 3
    pool.stop()
    eventually(lambda: pool.num_processes == 0)


def test_terminate_does_not_wait_for_a_task(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pool = get_pool("threads", 1)
    running = pool.apply_async(tasks.wait_for, (str(gate),))
    waiting = pool.apply_async(tasks.add, (1,))
    eventually(lambda: pool.busy_slots == 1)

    pool.terminate()

    assert waiting.done
    assert not running.done
    gate.touch()
    assert running.result(20)
