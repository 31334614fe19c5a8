"""Pool classes that were written for Celery, used unchanged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pools import (
    BasePool,
    Handle,
    HandleState,
    HardTimeLimit,
    PoolError,
    PoolUnavailable,
    SlotLost,
    Terminated,
    available,
    get_pool,
    pool_class,
)
from pools.celery_pool import CeleryPool
from tests.conftest import PATIENCE, eventually
from tests.pools import tasks

THIS_THREAD = __name__
ROOT = Path(__file__).parents[2]


class Duck:
    """The methods of Celery's pools without deriving from anything."""

    is_green = False
    signal_safe = True

    def __init__(self, limit: int, **options: Any) -> None:
        self.limit = limit
        self.options = options
        self.calls: list[str] = []
        self.jobs: list[dict[str, Any]] = []

    @property
    def num_processes(self) -> int:
        return self.limit

    @property
    def info(self) -> dict[str, Any]:
        return {"max-concurrency": self.limit, "kind": "duck"}

    def start(self) -> None:
        self.calls.append("start")

    def close(self) -> None:
        self.calls.append("close")

    def stop(self) -> None:
        self.calls.append("stop")

    def terminate(self) -> None:
        self.calls.append("terminate")

    def apply_async(
        self,
        target: Any,
        args: Any = (),
        kwargs: Any = None,
        soft_timeout: Any = None,
        timeout: Any = None,
        **options: Any,
    ) -> None:
        """Remembers the job; the test plays the slot."""
        self.jobs.append({"target": target, "args": args, "soft_timeout": soft_timeout, "timeout": timeout, **options})

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        self.calls.append(f"terminate_job {pid} {signal}")

    def grow(self, n: int = 1) -> None:
        self.limit += n

    def shrink(self, n: int = 1) -> None:
        self.limit -= n

    def restart(self) -> None:
        self.calls.append("restart")


class Refuses(Duck):
    def did_start_ok(self) -> bool:
        return False


class Fails(Duck):
    def apply_async(self, *args: Any, **options: Any) -> None:
        raise OSError("no room")


class NoPool:
    def apply_async(self) -> None:
        pass


class Info:
    """As billiard's ExceptionInfo."""

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception


def duck_pool(limit: int = 1, **options: Any) -> tuple[CeleryPool, Any]:
    pool = get_pool(f"{THIS_THREAD}:Duck", limit, **options)
    assert isinstance(pool, CeleryPool)
    pool.start()
    return pool, pool.celery


def finish(job: dict[str, Any], pid: int = 77) -> None:
    job["accept_callback"](pid, time.monotonic())
    job["callback"](job["target"](*job["args"]))


def test_a_class_with_the_methods_of_celerys_base_is_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", f"{THIS_THREAD}:Duck")

    for name in ("custom", f"{THIS_THREAD}:Duck"):
        found = pool_class(name)
        assert issubclass(found, BasePool)
        assert found.__name__ == "Duck"
    assert "custom" in available()
    with pytest.raises(PoolUnavailable, match="not a pool class") as refused:
        pool_class(f"{THIS_THREAD}:NoPool")
    assert "Celery" in refused.value.hint


def test_it_is_made_as_celery_makes_its_pools() -> None:
    app = object()
    _, duck = duck_pool(3, app=app, hostname="w1@host", max_tasks_per_child=5, max_memory_per_child_bytes=2048)

    assert duck.limit == 3
    assert duck.options["app"] is app
    assert duck.options["initargs"] == (app, "w1@host")
    assert (duck.options["maxtasksperchild"], duck.options["max_memory_per_child"]) == (5, 2)
    assert {"putlocks", "threads", "forking_enable", "callbacks_propagate", "timeout", "soft_timeout"} <= set(
        duck.options
    )


def test_its_life_is_that_of_a_celery_pool() -> None:
    pool, duck = duck_pool()
    handle = pool.apply_async(tasks.add, (1,))
    threading.Timer(0.05, finish, (duck.jobs[0],)).start()
    pool.stop()
    assert handle.value == 1
    assert duck.calls == ["start", "close", "stop"]

    pool, duck = duck_pool()
    running, waiting = pool.apply_async(tasks.add, (1,)), pool.apply_async(tasks.add, (2,))
    pool.terminate()
    assert duck.calls == ["start", "close", "terminate"]
    assert waiting.state is HandleState.CANCELLED
    with pytest.raises(Terminated):
        running.result()

    get_pool(f"{THIS_THREAD}:Duck").stop()  # never started: nothing to end
    with pytest.raises(PoolError, match="could not start"):
        get_pool(f"{THIS_THREAD}:Refuses").start()


def test_what_it_can_do_is_read_from_what_it_defines() -> None:
    duck = get_pool(f"{THIS_THREAD}:Duck").traits
    assert (duck.soft_limit, duck.hard_limit, duck.terminate, duck.resize, duck.recycle_tasks) == (True,) * 5

    plain = get_pool("tests.pools.own:CeleryStyle").traits
    assert (plain.soft_limit, plain.hard_limit, plain.terminate, plain.recycle_tasks) == (False,) * 4
    assert plain.resize
    assert not plain.signal_safe
    solo = get_pool("celery.concurrency.solo:TaskPool")
    assert solo.signal_safe
    with pytest.raises(PoolError, match="cannot end a running task"):
        solo.terminate_job(1)
    with pytest.raises(PoolError, match="number of slots"):
        solo.grow()


def test_facts_come_from_the_class() -> None:
    pool, duck = duck_pool(2)
    assert pool.info["kind"] == "duck"
    assert pool.num_processes == 2
    assert get_pool("celery.concurrency.solo:TaskPool", 8).limit == 1, "its own idea of its slots counts"
    with get_pool("celery.concurrency.thread:TaskPool", 2) as threads:
        threads.apply_async(tasks.add, (1,)).result(PATIENCE)
        assert threads.info["threads"] >= 1
        assert threads.info["implementation"] == "celery.concurrency.thread:TaskPool"
    assert duck.calls == ["start"]


def test_a_job_goes_to_it_as_celerys_worker_sends_one() -> None:
    accepted: list[tuple[int, float]] = []
    pool, duck = duck_pool()
    handle = pool.apply_async(
        tasks.add,
        (1,),
        {"b": 2},
        id="abc",
        accept_callback=lambda pid, now: accepted.append((pid, now)),
        soft_timeout_seconds=3,
        timeout_seconds=5,
    )

    [job] = duck.jobs
    assert (job["correlation_id"], job["soft_timeout"], job["timeout"]) == ("abc", 3, 5)
    assert handle.state is HandleState.WAITING
    job["accept_callback"](77, 12.5)
    assert (handle.state, handle.pid, handle.started_at) == (HandleState.RUNNING, 77, 12.5)
    assert accepted == [(77, 12.5)]
    job["callback"](job["target"](*job["args"]))
    assert handle.result() == 3


def test_it_never_gets_more_than_it_has_slots() -> None:
    pool, duck = duck_pool(2)
    handles = [pool.apply_async(tasks.add, (number,)) for number in range(5)]
    assert len(duck.jobs) == 2
    assert (pool.busy_slots, pool.free_slots) == (2, 0)

    assert handles[4].cancel()
    finish(duck.jobs[0])
    assert len(duck.jobs) == 3
    pool.grow(1)
    assert (len(duck.jobs), duck.limit) == (4, 3)
    pool.shrink(2)
    assert duck.limit == 1
    for job in duck.jobs[1:]:
        finish(job)

    assert [handle.value for handle in handles[:4]] == [0, 1, 2, 3]
    assert (pool.busy_slots, pool.free_slots) == (0, 1)
    assert {handle.slot for handle in handles[:4]} <= {0, 1, 2}
    pool.restart()
    assert duck.calls[-1] == "restart"


@pytest.mark.parametrize(
    ("name", "ours"),
    [("WorkerLostError", SlotLost), ("TimeLimitExceeded", HardTimeLimit), ("Terminated", Terminated)],
)
def test_what_it_says_of_an_end_is_translated(name: str, ours: type[PoolError]) -> None:
    theirs = type(name, (Exception,), {})("their words")
    pool, duck = duck_pool()
    handle = pool.apply_async(tasks.add, (1,))

    duck.jobs[0]["error_callback"](Info(theirs))

    with pytest.raises(ours, match="their words"):
        handle.result()
    assert handle.error is not None
    assert handle.error.__cause__ is theirs


def test_limits_that_it_keeps_are_told() -> None:
    soft: list[Handle] = []
    hard: list[Handle] = []
    pool, duck = duck_pool(on_soft_timeout=soft.append, on_hard_timeout=hard.append)
    handle = pool.apply_async(tasks.add, (1,), soft_timeout_seconds=1, timeout_seconds=2)
    [job] = duck.jobs
    job["accept_callback"](77, time.monotonic())

    job["timeout_callback"](True, 1)
    assert soft == [handle]
    assert not handle.done
    job["timeout_callback"](False, 2)

    with pytest.raises(HardTimeLimit, match="2 s"):
        handle.result()
    job["error_callback"](Info(ValueError("too late")))
    assert isinstance(handle.error, HardTimeLimit)
    assert hard == [handle]
    assert pool.free_slots == 1


def test_a_job_is_ended_by_the_pid_that_it_was_accepted_with() -> None:
    pool, duck = duck_pool()
    handle = pool.apply_async(tasks.add, (1,))
    duck.jobs[0]["accept_callback"](4711, time.monotonic())

    assert pool.terminate_job(handle, signal.SIGTERM)
    assert duck.calls[-1].startswith("terminate_job 4711 ")
    duck.jobs[0]["callback"]((False, None, None))  # as Celery's green pools report a killed task

    with pytest.raises(Terminated):
        handle.result()
    assert not pool.terminate_job(handle)


def test_a_pool_that_refuses_a_job_fails_it_alone() -> None:
    pool = get_pool(f"{THIS_THREAD}:Fails")
    handle = pool.apply_async(tasks.add, (1,))

    with pytest.raises(OSError, match="no room"):
        handle.result(PATIENCE)
    assert pool.free_slots == 1


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt(), ValueError("boom")])
@pytest.mark.parametrize("path", ["celery.concurrency.solo:TaskPool", "celery.concurrency.thread:TaskPool"])
def test_whatever_a_task_raises_reaches_its_handle(path: str, error: BaseException) -> None:
    def task() -> None:
        raise error

    with get_pool(path, 1) as pool:
        handle = pool.apply_async(task)
        pool.wait(handle, PATIENCE)
        assert handle.error is error
        assert "raise error" in handle.traceback
        assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


def test_celerys_own_prefork_pool_runs_as_a_third_party_class() -> None:
    """In a process of its own: it forks, and sets the process up for itself."""
    code = """
import os, time
from celery import Celery
from pools import get_pool, HardTimeLimit, Terminated
from tests.pools import tasks

app = Celery("x", broker="memory://", set_as_current=False)
pool = get_pool("celery.concurrency.prefork:TaskPool", 2, app=app, hostname="w@h")
pool.start()
assert pool.traits.hard_limit and pool.traits.terminate and pool.traits.resize, pool.traits
handles = [pool.apply_async(tasks.square, (n,)) for n in range(20)]
assert [h.result(120) for h in handles] == [n * n for n in range(20)]
assert os.getpid() not in {h.pid for h in handles}
failed = pool.apply_async(tasks.fail, ("boom",))
try:
    failed.result(120)
except ValueError:
    assert "raise ValueError(message)" in failed.traceback
slow = pool.apply_async(tasks.nap, (60,), timeout_seconds=0.5)
try:
    slow.result(120)
except HardTimeLimit:
    print("limited")
pool.stop()
print("stopped")
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=4 * PATIENCE)
    assert out.stdout.split() == ["limited", "stopped"], out.stderr


def test_the_adapter_does_not_import_celery() -> None:
    systems = ("celery", "billiard", "kombu")
    code = f"import sys, pools.celery_pool; print([name for name in {systems} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_hand_written_subclass_of_celerys_base_lives_its_life() -> None:
    pool = get_pool("tests.pools.own:CeleryStyle", 2)
    assert isinstance(pool, CeleryPool)
    pool.start()
    handles = [pool.apply_async(tasks.echo, (number,), id=str(number)) for number in range(50)]
    assert [handle.result(PATIENCE) for handle in handles] == list(range(50))
    assert {handle.pid for handle in handles} == {os.getpid()}
    pool.stop()
    eventually(lambda: pool.celery.seen == ["start", "close", "stop"])
    assert pool.celery.last_options["correlation_id"] == "49"
