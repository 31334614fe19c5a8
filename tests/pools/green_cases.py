"""What only green pools promise. ``test_green`` runs this in a patched process of each."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any

import pytest

from pools import BasePool, EventLoop, HardTimeLimit, PoolState, PoolUnavailable, SoftTimeLimit, Terminated, get_pool
from pools.green import GreenPool
from pools.green_limits import Killed
from pools.handle import Handle
from pools.patching import unpatched
from tests.conftest import PATIENCE, eventually
from tests.limits import struck_inside
from tests.pools import patched, tasks

KIND = os.environ[patched.VARIABLE]
Make = Callable[..., GreenPool]


@pytest.fixture
def make() -> Iterator[Make]:
    """A pool of the kind under test."""
    made: list[BasePool] = []

    def make(limit: int = 3, **options: Any) -> GreenPool:
        pool = get_pool(KIND, limit, **options)
        assert isinstance(pool, GreenPool)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        if pool.state is not PoolState.STOPPED:
            pool.terminate()


def spin() -> None:
    while True:
        pass


def spin_whatever_comes(path: str) -> None:
    tasks.mark(path)
    while not os.path.exists(path + ".enough"):
        with contextlib.suppress(BaseException):
            tasks.busy_for(60)


def wait_whatever_comes(path: str) -> str:
    while not os.path.exists(path):
        with contextlib.suppress(BaseException):
            time.sleep(60)
    return "my own way"


def catch_soft_limit_spinning() -> str:
    try:
        spin()
    except SoftTimeLimit:
        return "cleaned up"
    return "never"


def catch_the_kill(path: str) -> None:
    try:
        time.sleep(60)
    except Killed:
        tasks.mark(path)
        raise


def let_exceptions_pass(path: str) -> None:
    while True:
        try:
            time.sleep(60)
        except Exception:
            tasks.mark(path)


def block(seconds: float, gate: str = "") -> None:
    """C code with all signals blocked: nothing in this process gets through. With a gate: at most this long."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (gate and os.path.exists(gate)):
        ctypes.CDLL(None).usleep(10_000)
    signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def test_a_thousand_sleeping_tasks_run_at_once(make: Make) -> None:
    pool = make(1000)
    most = 0

    def meet() -> int:
        nonlocal most
        most = max(most, pool.busy_slots)
        while most < 1000:
            time.sleep(0.05)
        return 1

    handles = [pool.apply_async(meet, timeout_seconds=100) for _ in range(1000)]

    assert sum(handle.result(PATIENCE) for handle in handles) == 1000
    assert sorted(handle.slot for handle in handles) == list(range(1000))
    assert (pool.busy_slots, pool.free_slots) == (0, 1000)


def test_terminate_job_ends_exactly_one_task_by_handle_or_by_pid(make: Make, tmp_path: Path) -> None:
    pool = make(5)
    ended: list[str] = []
    handles = [
        pool.apply_async(
            tasks.wait_for,
            (str(tmp_path / "gate"),),
            id=name,
            callback=lambda handle: ended.append(f"{handle.id} {type(handle.error).__name__}"),
        )
        for name in "abcde"
    ]
    eventually(lambda: all(handle.pid for handle in handles))

    assert len({handle.pid for handle in handles}) == 5
    assert pool.terminate_job(handles[1])
    assert pool.terminate_job(handles[3].pid)
    assert not pool.terminate_job(os.getpid())
    for handle in (handles[1], handles[3]):
        with pytest.raises(Terminated):
            handle.result(PATIENCE)

    assert [handle.done for handle in handles] == [False, True, False, True, False]
    (tmp_path / "gate").touch()
    pool.stop()
    assert sorted(ended) == ["a NoneType", "b Terminated", "c NoneType", "d Terminated", "e NoneType"]


def test_a_killed_task_may_clean_up_and_except_exception_does_not_stop_it(make: Make, tmp_path: Path) -> None:
    pool = make()
    catching = pool.apply_async(catch_the_kill, (str(tmp_path / "caught"),))
    careless = pool.apply_async(let_exceptions_pass, (str(tmp_path / "never"),))
    eventually(lambda: catching.pid and careless.pid)

    assert pool.terminate_job(catching)
    assert pool.terminate_job(careless)

    for handle in (catching, careless):
        with pytest.raises(Terminated):
            handle.result(PATIENCE)
    assert tasks.lines(tmp_path / "caught") == ["x"]
    assert tasks.lines(tmp_path / "never") == []


def test_a_spinning_task_meets_its_limits_and_its_neighbours_do_not(make: Make, tmp_path: Path) -> None:
    pool = make(4)
    neighbour = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"),), timeout_seconds=100)

    def caught(seconds: float) -> object:
        try:
            return pool.apply_async(catch_soft_limit_spinning, soft_timeout_seconds=seconds).result(PATIENCE)
        except SoftTimeLimit:  # before it came to its ``try``
            return None

    assert struck_inside(caught) == "cleaned up"
    with pytest.raises(SoftTimeLimit, match=r"0\.1 s"):
        pool.apply_async(spin, soft_timeout_seconds=0.1).result(PATIENCE)
    with pytest.raises(HardTimeLimit, match=r"0\.1 s"):
        pool.apply_async(spin, timeout_seconds=0.1).result(PATIENCE)

    assert not neighbour.done
    (tmp_path / "gate").touch()
    assert neighbour.result(PATIENCE)


def test_a_spinning_task_is_not_disturbed_for_a_limit_of_its_neighbour(make: Make) -> None:
    struck: list[str] = []
    pool = make(on_hard_timeout=lambda handle: struck.append(handle.id))
    late = pool.apply_async(time.sleep, (60,), id="late", timeout_seconds=0.1)
    computing = pool.apply_async(tasks.busy_for, (1.0,), id="computing", timeout_seconds=100)

    assert computing.result(PATIENCE) == 1.0
    with pytest.raises(HardTimeLimit):
        late.result(PATIENCE)
    eventually(lambda: struck == ["late"])


def test_a_task_that_waits_whatever_comes_is_given_up_and_keeps_its_slot(make: Make, tmp_path: Path) -> None:
    pool = make(1)
    pool.patience_seconds = 0.5  # type: ignore[misc]
    gate = tmp_path / "gate"
    handle = pool.apply_async(wait_whatever_comes, (str(gate),), timeout_seconds=0.1)
    following = pool.apply_async(tasks.add, (1,))

    with pytest.raises(HardTimeLimit):
        handle.result(PATIENCE)
    assert handle.abandoned
    assert (pool.busy_slots, following.done) == (1, False)
    gate.touch()

    assert following.result(PATIENCE) == 1
    assert isinstance(handle.error, HardTimeLimit), "what it returns in the end is dropped"


def test_the_owner_is_told_when_only_the_end_of_the_process_helps(make: Make, tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    gate = tmp_path / "gate"
    pool = make(2, on_blocked=lambda handle: (told.append((handle.id, handle.done)), gate.touch()))
    pool.patience_seconds = 0.5  # type: ignore[misc]
    innocent = pool.apply_async(time.sleep, (60,), id="innocent", timeout_seconds=0.1)
    pool.apply_async(block, (60, str(gate)), id="culprit", timeout_seconds=0.1)

    with pytest.raises(HardTimeLimit):
        innocent.result(PATIENCE)

    assert told == [("culprit", False)]


def writes_and_waits(path: str) -> None:
    while not os.path.exists(path + ".enough"):
        tasks.mark(f"{path}.{os.getpid()}")
        time.sleep(0.01)


def forks(path: str) -> int:
    """Its child waits as long as its neighbour writes a few times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eventlet warns of every fork
        child = os.fork()
    if child == 0:
        for _ in range(20):
            time.sleep(0.02)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_in_a_forked_child_no_other_task_goes_on(make: Make, tmp_path: Path) -> None:
    """A hub has copies of all greenlets after a fork: the child of a task would go on as a second worker."""
    path = tmp_path / "neighbour"
    pool = make(2)
    neighbour = pool.apply_async(writes_and_waits, (str(path),))
    eventually(lambda: list(tmp_path.iterdir()))

    assert pool.apply_async(forks, (str(path),)).result(PATIENCE) == 7
    (tmp_path / "neighbour.enough").touch()
    neighbour.result(PATIENCE)
    assert [one.name for one in tmp_path.glob("neighbour.[0-9]*")] == [f"neighbour.{os.getpid()}"]


def test_nobody_is_blamed_for_a_block_within_its_limits(make: Make) -> None:
    told: list[str] = []
    pool = make(2, on_blocked=lambda handle: told.append(handle.id))
    pool.patience_seconds = 0.2  # type: ignore[misc]
    late = pool.apply_async(time.sleep, (60,), id="late", timeout_seconds=0.1)
    blocking = pool.apply_async(block, (2,), id="blocking", timeout_seconds=100)

    blocking.result(PATIENCE)
    with pytest.raises(HardTimeLimit):
        late.result(PATIENCE)
    assert told == []


def test_a_task_that_spins_whatever_comes_is_told_to_the_owner(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "spins"
    told: list[Handle] = []

    def on_blocked(handle: Handle) -> None:
        told.append(handle)
        open(f"{path}.enough", "w").close()

    pool = make(1, on_blocked=on_blocked)
    pool.patience_seconds = 0.5  # type: ignore[misc]
    handle = pool.apply_async(spin_whatever_comes, (str(path),), timeout_seconds=0.1)

    with pytest.raises(HardTimeLimit):
        handle.result(PATIENCE)
    assert told == [handle]


def test_terminate_ends_everything_and_tells_each_end_once(make: Make, tmp_path: Path) -> None:
    pool = make(2)
    ended: list[str] = []
    handles = [
        pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"),), callback=lambda handle: ended.append(handle.state))
        for _ in range(4)
    ]
    eventually(lambda: handles[1].pid)

    pool.terminate()

    assert [str(handle.state) for handle in handles] == ["failed", "failed", "cancelled", "cancelled"]
    assert all(isinstance(handle.error, Terminated) for handle in handles)
    assert len(ended) == 4
    assert pool.busy_slots == 0


def test_slots_come_and_go_under_running_tasks(make: Make, tmp_path: Path) -> None:
    pool = make(2)
    gate = tmp_path / "gate"
    running = [pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started"))) for _ in range(4)]
    eventually(lambda: len(tasks.lines(tmp_path / "started")) == 2)

    pool.grow(2)
    eventually(lambda: len(tasks.lines(tmp_path / "started")) == 4)
    pool.shrink(3)
    waiting = pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started")))

    assert (pool.limit, pool.num_processes, pool.busy_slots, pool.free_slots) == (1, 1, 4, 0)
    assert pool.terminate_job(running[0])
    with pytest.raises(Terminated):
        running[0].result(PATIENCE)
    assert not waiting.started_at, "three run, one slot is left"
    gate.touch()
    waiting.result(PATIENCE)
    pool.grow(3)
    assert pool.free_slots == 4
    assert [handle.result(PATIENCE) > 0 for handle in running[1:]] == [True] * 3


def test_a_signal_ends_the_wait_of_the_loop_while_tasks_sleep(make: Make) -> None:
    from fleet.worker.os_signals import SignalBox

    loop, box = EventLoop(), SignalBox()
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    others = [signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1]
    before |= {signum: signal.getsignal(signum) for signum in others}
    taken: list[int] = []
    pool = make(10)
    pool.register_with_event_loop(loop)
    sleeping = [pool.apply_async(time.sleep, (60,), timeout_seconds=100) for _ in range(10)]
    box.install()
    try:
        loop.add_reader(box.fileno(), lambda: taken.extend(box.take()))
        command = f"import os, time; time.sleep(0.3); os.kill({os.getpid()}, {int(signal.SIGTERM)})"
        with subprocess.Popen([sys.executable, "-c", command]):
            for _ in range(1000):
                if taken:
                    break
                loop.run_once(60)
        assert taken == [signal.SIGTERM]
        pool.terminate()
        assert all(isinstance(handle.error, Terminated) for handle in sleeping)
    finally:
        box.close()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        loop.close()


def test_a_wait_that_failed_for_a_closed_descriptor_does_not_end_the_loop_later() -> None:
    loop = EventLoop()
    closed = socket.socket()
    number = closed.fileno()
    os.close(closed.detach())
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        select.select([number], [], [], 0)
    for _ in range(2):
        with socket.socket() as later:  # it may get that number
            assert later.fileno() >= 0
            loop.run_once(0.01)
            loop.run_once(0)
    loop.close()


def test_a_green_pool_is_refused_for_the_other_library() -> None:
    other = "eventlet" if KIND == "gevent" else "gevent"

    with pytest.raises(PoolUnavailable, match=f"patched for {other} before anything else") as refused:
        get_pool(other, 2)
    assert "patch(" in refused.value.hint


if KIND == "eventlet":

    def test_an_eventlet_pool_tells_its_life(make: Make) -> None:
        told: list[tuple[str, list[str]]] = []
        pool = make(1, on_lifecycle=lambda what, pool, **facts: told.append((what, sorted(facts))))
        pool.apply_async(tasks.add, (1,)).result(PATIENCE)
        pool.stop()

        assert told == [
            ("started", []),
            ("apply", ["args", "kwargs", "target"]),
            ("preshutdown", []),
            ("postshutdown", []),
        ]
        assert pool.info["free-threads"] == 1


def test_a_callback_may_wait_where_the_hub_has_found_the_limit(make: Make, tmp_path: Path) -> None:
    told: list[str] = []

    def waits(handle: Handle) -> None:
        time.sleep(0.01)
        told.append(handle.id)

    pool = make(on_soft_timeout=waits)
    path = tmp_path / "enough"
    handle = pool.apply_async(wait_whatever_comes, (str(path),), id="t", soft_timeout_seconds=0.05)
    eventually(lambda: told == ["t"])
    path.touch()
    handle.add_done_callback(waits)
    eventually(lambda: told == ["t", "t"])


def test_what_was_there_before_the_patch_can_be_had() -> None:
    fork, kind = unpatched("os", "fork"), unpatched("socket", "socket")
    assert isinstance(fork, BuiltinFunctionType)
    assert kind is not socket.socket
    one, other = kind(socket.AF_UNIX, socket.SOCK_DGRAM), kind(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.closing(one), contextlib.closing(other):
        assert one.gettimeout() is None
        assert os.get_blocking(one.fileno())
