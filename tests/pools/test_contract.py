"""What every pool promises, whatever runs its slots. Capabilities are read from its traits."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pools import (
    TRAITS,
    BasePool,
    EventLoop,
    Handle,
    HandleState,
    HardTimeLimit,
    PoolClosed,
    PoolError,
    SoftTimeLimit,
    Terminated,
    Unpicklable,
)
from tests.conftest import PATIENCE, eventually
from tests.limits import struck_inside
from tests.pools import patched, tasks

Make = Callable[..., BasePool]

GREEN = os.environ.get(patched.VARIABLE)
OURS = ("solo", "prefork", "prefork+loop", "threads", "threads+loop", "asyncio", "asyncio+loop")
THEIRS = ("own", "own+loop", "celery", "celery+loop", "celery-threads", "celery-solo")
INLINE = ("solo", "celery-solo")
KINDS = (GREEN, f"{GREEN}+loop") if GREEN else (*OURS, *THEIRS)
CONCURRENT = tuple(kind for kind in KINDS if kind not in INLINE)

every_pool = pytest.mark.parametrize("kind", KINDS)
every_concurrent_pool = pytest.mark.parametrize("kind", CONCURRENT)


def turn_until(pool: BasePool, check: Callable[[], object]) -> None:
    """Wait for something while the pool's loop, if this test drives it, goes on turning."""

    def turn() -> object:
        if pool.loop is not None and pool.loop.in_thread:
            pool.loop.run_once(0.01)
        return check()

    eventually(turn, every=0.002)


@every_pool
def test_returns_what_the_task_returns(make_pool: Make, kind: str) -> None:
    handle = make_pool(kind).apply_async(tasks.add, (1,), {"b": 2}, id="sum")

    assert handle.result(PATIENCE) == 3
    assert (handle.id, handle.state, handle.slot, handle.done) == ("sum", HandleState.SUCCEEDED, 0, True)
    assert 0 < handle.started_at <= handle.ended_at
    assert handle.error is None
    assert handle.traceback == ""


@every_pool
def test_an_exception_comes_back_with_its_traceback(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    handle = pool.apply_async(tasks.fail, ("boom",))

    with pytest.raises(ValueError, match="boom"):
        handle.result(PATIENCE)
    assert handle.state is HandleState.FAILED
    assert "raise ValueError(message)" in handle.traceback
    assert pool.apply_async(tasks.add, (1, 1)).result(PATIENCE) == 2


@every_pool
def test_a_task_that_exits_fails_and_the_pool_goes_on(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)

    with pytest.raises(SystemExit):
        pool.apply_async(tasks.leave).result(PATIENCE)
    assert pool.apply_async(tasks.add, (1, 1)).result(PATIENCE) == 2


@every_pool
def test_callbacks_come_in_order_and_in_the_thread_of_the_loop(make_pool: Make, kind: str) -> None:
    seen: list[tuple[str, bool]] = []
    pool = make_pool(kind)
    here = threading.get_ident()

    def note(word: str) -> None:
        seen.append((word, threading.get_ident() == here))

    handle = pool.apply_async(
        tasks.add,
        (1,),
        accept_callback=lambda pid, now: note(f"accepted {pid > 0} {now > 0}"),
        callback=lambda handle: note(f"done {handle.value}"),
    )
    handle.add_done_callback(lambda handle: note("added"))
    handle.result(PATIENCE)
    turn_until(pool, lambda: len(seen) == 3)
    handle.add_done_callback(lambda handle: note("late"))
    turn_until(pool, lambda: len(seen) == 4)

    assert [word for word, _ in seen] == ["accepted True True", "done 1", "added", "late"]
    if kind.endswith("+loop"):
        assert all(in_thread for _, in_thread in seen)


@every_pool
def test_a_callback_that_raises_harms_nobody(make_pool: Make, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    pool = make_pool(kind)
    reached: list[bool] = []

    def raises(*_: object) -> None:
        raise RuntimeError("careless")

    handle = pool.apply_async(tasks.add, (1,), accept_callback=raises, callback=raises)
    handle.add_done_callback(lambda handle: reached.append(True))

    assert handle.result(PATIENCE) == 1
    turn_until(pool, lambda: reached)
    assert "careless" in caplog.text


@every_pool
def test_one_slot_runs_tasks_in_the_order_they_came(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)
    path = tmp_path / "order"

    handles = [pool.apply_async(tasks.mark, (str(path), str(number))) for number in range(30)]
    for handle in handles:
        handle.result(PATIENCE)

    assert tasks.lines(path) == [str(number) for number in range(30)]


@every_pool
def test_a_thousand_tasks_each_end_once(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 1 if kind in INLINE else 3)
    ended: list[int] = []

    handles = [
        pool.apply_async(tasks.add, (number, 1), callback=lambda handle: ended.append(handle.value))
        for number in range(1000)
    ]

    assert [handle.result(PATIENCE) for handle in handles] == list(range(1, 1001))
    turn_until(pool, lambda: len(ended) == 1000)
    assert sorted(ended) == list(range(1, 1001))
    turn_until(pool, lambda: (pool.busy_slots, pool.free_slots) == (0, pool.limit))


@every_concurrent_pool
def test_slots_run_at_the_same_time_and_are_counted(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind, 3)
    turn_until(pool, lambda: pool.free_slots == 3)
    gate = tmp_path / "gate"

    handles = [pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started"))) for _ in range(4)]
    turn_until(pool, lambda: len(tasks.lines(tmp_path / "started")) == 3)

    assert (pool.busy_slots, pool.free_slots) == (3, 0)
    assert sorted(handle.slot for handle in handles if handle.state is HandleState.RUNNING) == [0, 1, 2]
    gate.touch()
    for handle in handles:
        handle.result(PATIENCE)
    own = kind.startswith("prefork")
    assert (os.getpid() not in {handle.value for handle in handles}) is own


@every_concurrent_pool
def test_what_has_not_started_can_be_taken_back(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)
    gate = tmp_path / "gate"
    first = pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started")))
    turn_until(pool, lambda: tasks.lines(tmp_path / "started"))
    second, third, fourth = (pool.apply_async(tasks.mark, (str(tmp_path / "ran"),)) for _ in range(3))

    assert second.cancel()
    assert not second.cancel()
    assert not first.cancel()
    assert pool.flush() == [third, fourth]
    gate.touch()
    first.result(PATIENCE)

    assert {second.state, third.state, fourth.state} == {HandleState.CANCELLED}
    with pytest.raises(Terminated):
        second.result()
    pool.stop()
    assert tasks.lines(tmp_path / "ran") == []


@every_pool
def test_stop_waits_for_everything_accepted(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)
    path = tmp_path / "ran"
    for _ in range(20):
        pool.apply_async(tasks.mark, (str(path),))

    pool.stop()

    assert len(tasks.lines(path)) == 20
    with pytest.raises(PoolClosed):
        pool.apply_async(tasks.add, (1,))
    pool.stop()
    pool.terminate()


@every_pool
def test_close_refuses_new_work_and_finishes_the_old(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    handles = [pool.apply_async(tasks.add, (number,)) for number in range(5)]

    pool.close()

    with pytest.raises(PoolClosed):
        pool.apply_async(tasks.add, (1,))
    assert [handle.result(PATIENCE) for handle in handles] == list(range(5))


@every_pool
def test_a_task_may_use_a_process_pool(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    if not pool.traits.task_children:
        return
    handle = pool.apply_async(tasks.squares_in_processes, (20,))

    assert handle.result(PATIENCE) == [number * number for number in range(20)]


@every_pool
def test_a_task_may_use_asyncio(make_pool: Make, kind: str) -> None:
    assert make_pool(kind).apply_async(tasks.run_asyncio).result(PATIENCE) == 42


@every_pool
def test_signal_safe_means_that_tasks_may_set_handlers(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    handle = pool.apply_async(tasks.set_signal_handler)

    if pool.signal_safe or pool.is_green:  # a green task can, too, but its neighbours share the handler
        assert handle.result(PATIENCE) == "main thread"
    else:
        with pytest.raises(ValueError, match="main thread"):
            handle.result(PATIENCE)


@every_pool
def test_the_soft_limit_is_raised_inside_the_task(make_pool: Make, kind: str, tmp_path: Path) -> None:
    told: list[str] = []
    pool = make_pool(kind, on_soft_timeout=lambda handle: told.append(handle.id))
    if not pool.traits.soft_limit:
        with pytest.raises(PoolError, match="soft time limit"):
            pool.apply_async(tasks.until_soft_limit, soft_timeout_seconds=1)
        return

    cleaned = tmp_path / "cleaned"
    limited: list[str] = []

    def caught(seconds: float) -> object:
        limited.append(f"a {seconds}")
        handle = pool.apply_async(tasks.until_soft_limit, (str(cleaned),), id=limited[-1], soft_timeout_seconds=seconds)
        try:
            return handle.result(PATIENCE)
        except SoftTimeLimit:  # before it came to its ``try``
            return None

    assert struck_inside(caught) == "cleaned up"
    assert tasks.lines(cleaned) == ["x"]
    uncaught = pool.apply_async(tasks.nap, (60,), id="b", soft_timeout_seconds=0.1)
    with pytest.raises(SoftTimeLimit, match=r"0\.1 s"):
        uncaught.result(PATIENCE)
    turn_until(pool, lambda: told == [*limited, "b"])


@every_pool
def test_a_limit_does_not_strike_the_next_task(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    if not pool.traits.soft_limit:
        return
    struck = 0
    for _ in range(60):
        # As long as the limit: the signal comes before, at and after the end of the task.
        limited = pool.apply_async(tasks.busy_for, (0.01,), soft_timeout_seconds=0.01)
        unlimited = pool.apply_async(tasks.busy_for, (0.005,))
        try:
            limited.result(PATIENCE)
        except SoftTimeLimit:
            struck += 1
        assert unlimited.result(PATIENCE) == 0.005
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_pool
def test_the_hard_limit_is_told_and_fails_the_task(make_pool: Make, kind: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    told: list[str] = []
    pool = make_pool(kind, on_hard_timeout=lambda handle: (told.append(handle.id), gate.touch()))
    if not pool.traits.hard_limit:
        with pytest.raises(PoolError, match="hard time limit"):
            pool.apply_async(tasks.add, (1,), timeout_seconds=1)
        return

    handle = pool.apply_async(tasks.wait_for, (str(gate),), id="slow", timeout_seconds=0.1)

    if kind == "solo":
        # It cannot be ended from inside: the owner of the process is told while it still runs.
        assert handle.result(PATIENCE) == os.getpid()
    else:
        with pytest.raises(HardTimeLimit, match=r"0\.1 s"):
            handle.result(PATIENCE)
    turn_until(pool, lambda: told == ["slow"])
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_pool
def test_a_hard_limit_below_the_soft_one_comes_first(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    if not pool.traits.soft_limit:
        return

    with pytest.raises(HardTimeLimit):
        pool.apply_async(tasks.nap, (60,), soft_timeout_seconds=30, timeout_seconds=0.1).result(PATIENCE)


@every_pool
def test_slots_cannot_be_changed_after_the_end(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    pool.stop()

    if pool.traits.resize:
        with pytest.raises(PoolClosed):
            pool.grow()
    if pool.traits.recycle_tasks:
        with pytest.raises(PoolClosed):
            pool.restart()
    assert pool.flush() == []


@every_pool
def test_a_quick_task_under_limits_is_left_alone(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, on_hard_timeout=lambda handle: pytest.fail("struck"))
    if not pool.traits.hard_limit:
        return

    handles = [pool.apply_async(tasks.add, (number,), timeout_seconds=60) for number in range(50)]

    assert [handle.result(PATIENCE) for handle in handles] == list(range(50))


@every_pool
def test_terminate_job_ends_a_running_task_or_is_refused(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)
    if kind == "solo":
        assert not pool.terminate_job(os.getpid())
        return
    if kind in INLINE:
        assert not pool.traits.terminate
        return
    handle = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"), str(tmp_path / "started")))
    turn_until(pool, lambda: tasks.lines(tmp_path / "started"))

    if not pool.traits.terminate:
        with pytest.raises(PoolError, match="cannot end a running task"):
            pool.terminate_job(handle)
        (tmp_path / "gate").touch()
        return
    assert pool.terminate_job(handle, signal.SIGTERM)
    with pytest.raises(Terminated):
        handle.result(PATIENCE)
    assert not pool.terminate_job(handle)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_pool
def test_grow_and_shrink_or_a_refusal(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)
    if not pool.traits.resize:
        with pytest.raises(PoolError, match="number of slots"):
            pool.grow()
        return

    running = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"), str(tmp_path / "started")))
    turn_until(pool, lambda: tasks.lines(tmp_path / "started"))
    pool.grow(2)
    turn_until(pool, lambda: pool.free_slots == 2)
    pool.shrink(2)
    turn_until(pool, lambda: pool.num_processes == 1)

    assert (pool.limit, pool.busy_slots, pool.free_slots) == (1, 1, 0)
    assert not running.done
    with pytest.raises(ValueError, match="at least one"):
        pool.shrink(1)
    (tmp_path / "gate").touch()
    running.result(PATIENCE)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_pool
def test_ten_megabytes_go_in_and_come_out(make_pool: Make, kind: str) -> None:
    blob = os.urandom(10 * 1024 * 1024)
    pool = make_pool(kind)

    handles = [pool.apply_async(tasks.echo, (blob,)) for _ in range(3)]

    for handle in handles:
        assert handle.result(PATIENCE) == blob


@every_pool
@pytest.mark.parametrize("trouble", ["arguments", "target", "result", "exception", "loading exception", "loading"])
def test_what_cannot_travel_fails_its_own_task_only(make_pool: Make, kind: str, trouble: str) -> None:
    pool = make_pool(kind)
    ended: list[object] = []
    target, args = {
        "arguments": (tasks.echo, (lambda: None,)),
        "target": (lambda: None, ()),
        "result": (tasks.make_lambda, ()),
        "exception": (tasks.raise_local, ()),
        "loading exception": (tasks.raise_picky, ()),
        "loading": (tasks.make_bomb, ()),
    }[trouble]

    handle = pool.apply_async(target, args, callback=ended.append)
    neighbour = pool.apply_async(tasks.add, (1,))

    assert neighbour.result(PATIENCE) == 1
    turn_until(pool, lambda: ended == [handle])
    if kind.startswith("prefork"):
        assert isinstance(handle.error, Unpicklable)
        if "exception" in trouble:
            assert "raise " in handle.traceback


@every_pool
def test_slots_tell_what_they_do(make_pool: Make, kind: str) -> None:
    told: list[tuple[int, int, str]] = []
    pool = make_pool(kind, on_slot=lambda index, pid, state: told.append((index, pid, str(state))))

    handle = pool.apply_async(tasks.add, (1,))
    handle.result(PATIENCE)
    turn_until(pool, lambda: told and told[-1][2] == "idle")

    assert [state for _, _, state in told][-2:] == ["busy", "idle"]
    assert {(index, pid) for index, pid, _ in told} == {(0, handle.pid)}


@every_pool
def test_initializer_runs_where_the_tasks_run(make_pool: Make, kind: str) -> None:
    tasks.INITIALIZED.clear()

    pool = make_pool(kind, initializer=tasks.initialize, initargs=("yes",))

    assert pool.apply_async(tasks.initialized).result(PATIENCE) == ["yes"]


@every_pool
def test_flags_come_from_the_published_row(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)
    row = pool.traits if kind in THEIRS else TRAITS[kind.partition("+")[0]]

    assert pool.traits is row
    assert row.name in TRAITS
    assert (pool.name, pool.is_green, pool.signal_safe) == (row.name, row.is_green, row.signal_safe)
    assert {"implementation", "max-concurrency", "processes"} <= set(pool.info)


@pytest.mark.parametrize(
    ("kind", "limit", "options"),
    [
        ("solo", 2, {}),
        ("solo", 1, {"max_tasks_per_child": 5}),
        ("solo", 1, {"max_memory_per_child_bytes": 1}),
        ("threads", 2, {"max_tasks_per_child": 5}),
        ("threads", 2, {"start_method": "spawn"}),
        ("prefork", 2, {"start_method": "clone"}),
    ],
)
def test_options_that_a_pool_cannot_honour_are_refused(kind: str, limit: int, options: dict[str, object]) -> None:
    from pools import get_pool

    with pytest.raises(PoolError) as refused:
        get_pool(kind, limit, **options)
    assert str(refused.value)


@every_pool
def test_result_gives_up_after_its_timeout(make_pool: Make, kind: str, tmp_path: Path) -> None:
    if kind in INLINE:
        return  # the task has ended when the handle is there
    pool = make_pool(kind)
    handle = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"),))

    with pytest.raises(TimeoutError):
        handle.result(0.05)
    (tmp_path / "gate").touch()
    assert handle.result(PATIENCE)


def test_two_pools_share_one_loop(make_pool: Make, loop: EventLoop) -> None:
    first, second = make_pool("prefork+loop", 2), make_pool("threads+loop", 2)

    handles = [pool.apply_async(tasks.add, (number,)) for number in range(20) for pool in (first, second)]

    assert sum(handle.result(PATIENCE) for handle in handles) == 2 * sum(range(20))
    first.stop()
    assert second.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


# --- limits and ends, on tasks that wait and on tasks that compute ------------------------------------------------


def sleeping(pool: BasePool) -> Callable[[float], object]:
    """A task that waits in one blocking call, in the way that suits the pool."""
    return tasks.sleep_awaiting if pool.traits.async_tasks else time.sleep


def computing(pool: BasePool) -> Callable[[str], object]:
    return tasks.compute_until if pool.traits.async_tasks else tasks.compute_until_there


@every_pool
def test_a_soft_limit_reaches_what_the_table_says(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)
    if not pool.traits.soft_limit:
        return

    if pool.traits.reaches_waiting:
        with pytest.raises(SoftTimeLimit):
            pool.apply_async(sleeping(pool), (60,), soft_timeout_seconds=0.1).result(PATIENCE)
    if pool.traits.reaches_computing:
        with pytest.raises(SoftTimeLimit):
            pool.apply_async(computing(pool), (str(tmp_path / "never"),), soft_timeout_seconds=0.1).result(PATIENCE)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_pool
@pytest.mark.parametrize("what", ["waiting", "computing"])
def test_a_hard_limit_ends_the_task_or_gives_it_up(
    make_pool: Make, kind: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(tmp_path / "pipe")
    pool = make_pool(kind)
    if not pool.traits.hard_limit:
        return
    reached = pool.traits.reaches_waiting if what == "waiting" else pool.traits.reaches_computing
    if reached:  # then it has all the time it wants to end
        monkeypatch.setattr("pools.inprocess.GRACE_SECONDS", PATIENCE)
    target, args = sleeping(pool), (60,)
    if what == "computing":
        target, args = computing(pool), (str(gate),)
    elif not reached:
        target, args = tasks.read_pipe, (str(tmp_path / "pipe"),)

    def under_a_limit(seconds: float) -> Handle | None:
        handle = pool.apply_async(target, args, timeout_seconds=seconds)
        with pytest.raises(HardTimeLimit):
            handle.result(PATIENCE)
        return handle if handle.abandoned is not reached else None  # else before it was in its call

    assert struck_inside(under_a_limit)
    gate.touch()
    if target is tasks.read_pipe:
        (tmp_path / "pipe").write_text("over")
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_concurrent_pool
def test_ending_one_task_leaves_its_neighbours_alone(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind, 3)
    if not pool.traits.terminate:
        return
    gate, started = tmp_path / "gate", tmp_path / "started"
    handles = [pool.apply_async(tasks.wait_for, (str(gate), str(started))) for _ in range(3)]
    turn_until(pool, lambda: len(tasks.lines(started)) == 3)

    assert pool.terminate_job(handles[1])
    with pytest.raises(Terminated):
        handles[1].result(PATIENCE)
    gate.touch()

    assert handles[0].result(PATIENCE)
    assert handles[2].result(PATIENCE)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_concurrent_pool
def test_slots_come_and_go_under_load(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind, 2)
    if not pool.traits.resize:
        return
    path, handles = tmp_path / "ran", []

    for number in range(40):
        handles += [pool.apply_async(tasks.mark, (str(path), f"{number}-{which}")) for which in range(5)]
        if number % 4 == 0:
            pool.grow(2)
        elif number % 4 == 2:
            pool.shrink(2)

    for handle in handles:
        handle.result(PATIENCE)
    assert sorted(tasks.lines(path)) == sorted(f"{number}-{which}" for number in range(40) for which in range(5))
    assert pool.limit == 2
    turn_until(pool, lambda: (pool.busy_slots, pool.free_slots) == (0, 2))


@every_pool
def test_every_end_is_told_once_at_the_very_limit(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 1 if kind in INLINE else 3)
    if not pool.traits.hard_limit:
        return
    told: dict[str, int] = {}

    def note(handle: Handle) -> None:
        told[handle.id] = told.get(handle.id, 0) + 1

    handles = [
        pool.apply_async(tasks.busy_for, (0.02,), id=str(number), callback=note, timeout_seconds=0.02)
        for number in range(40)
    ]
    turn_until(pool, lambda: all(handle.done for handle in handles) and len(told) == 40)

    assert set(told.values()) == {1}
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1
    turn_until(pool, lambda: pool.busy_slots == 0)
    assert set(told.values()) == {1}
