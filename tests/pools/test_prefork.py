"""The prefork engine under crashes, limits, recycling and the end of the parent."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pools import (
    BasePool,
    EventLoop,
    HandleState,
    HardTimeLimit,
    PoolState,
    SlotLost,
    SoftTimeLimit,
    Terminated,
    get_pool,
)
from tests.conftest import PATIENCE, eventually
from tests.limits import struck_inside
from tests.pools import tasks
from tests.pools.test_contract import turn_until

Make = Callable[..., BasePool]

both = pytest.mark.parametrize("kind", ["prefork", "prefork+loop"])


def pids(pool: BasePool) -> list[int]:
    return list(pool.info["processes"])


def ready(pool: BasePool) -> None:
    turn_until(pool, lambda: pool.free_slots == pool.limit)


class Renewed(logging.FileHandler):
    """Tells when somebody makes a new lock for it in another process."""

    def __init__(self, path: Path, told: Path) -> None:
        self._pid, self._told = os.getpid(), told
        super().__init__(path)

    def createLock(self) -> None:  # noqa: N802
        super().createLock()
        if os.getpid() != self._pid:
            self._told.write_text("a new lock")


@both
def test_a_child_logs_under_locks_that_python_renewed(make_pool: Make, kind: str, tmp_path: Path) -> None:
    """Another thread held the lock when the child was forked. Nobody walks over all loggers, which the child shares
    with its parent: that would write to all of them."""
    handler = Renewed(tmp_path / "log", tmp_path / "told")
    logger, release = logging.getLogger("tests.pools.renewed"), threading.Event()
    logger.addHandler(handler)
    held = threading.Event()

    def hold() -> None:
        with handler.lock:  # type: ignore[union-attr]
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        make_pool(kind).apply_async(logger.warning, ("from the child",)).result(PATIENCE)
    finally:
        release.set()
        thread.join()
        logger.removeHandler(handler)
        handler.close()
    assert (tmp_path / "log").read_text() == "from the child\n"
    assert not (tmp_path / "told").exists()


# -- crashes


@both
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_fails_exactly_its_task(make_pool: Make, kind: str, signum: int) -> None:
    pool = make_pool(kind, 2)

    handles = [pool.apply_async(tasks.add, (number,)) for number in range(50)]
    crash = pool.apply_async(tasks.die, (int(signum),))
    handles += [pool.apply_async(tasks.add, (number,)) for number in range(50)]

    with pytest.raises(SlotLost) as lost:
        crash.result(PATIENCE)
    assert lost.value.exit_code == -signum
    assert signal.Signals(signum).name in str(lost.value)
    assert [handle.result(PATIENCE) for handle in handles] == [*range(50), *range(50)]
    ready(pool)


@both
def test_an_exit_in_the_middle_is_a_lost_slot(make_pool: Make, kind: str) -> None:
    with pytest.raises(SlotLost) as lost:
        make_pool(kind).apply_async(os._exit, (3,)).result(PATIENCE)
    assert lost.value.exit_code == 3


@both
def test_every_child_can_be_killed_again_and_again(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 3)
    for _ in range(5):
        ready(pool)
        for pid in pids(pool):
            os.kill(pid, signal.SIGKILL)
        assert [handle.result(PATIENCE) for handle in [pool.apply_async(tasks.add, (n,)) for n in range(20)]] == list(
            range(20)
        )


def test_a_result_written_before_the_death_counts(make_pool: Make, loop: EventLoop, tmp_path: Path) -> None:
    pool = make_pool("prefork+loop")
    ready(pool)
    gate = tmp_path / "gate"
    handle = pool.apply_async(tasks.die_after_returning, ("kept", str(gate)))

    # The loop does not turn until the child is dead: result and death are found together.
    eventually(lambda: select.select([loop._selector.fileno()], [], [], 0)[0])
    gate.touch()
    eventually(lambda: not tasks.alive(handle.pid))

    assert handle.result(PATIENCE) == "kept"
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


def test_a_task_that_its_child_never_read_is_given_to_another(make_pool: Make, loop: EventLoop, tmp_path: Path) -> None:
    accepted: list[int] = []
    pool = make_pool("prefork+loop")
    ready(pool)
    (victim,) = pids(pool)
    os.kill(victim, signal.SIGSTOP)

    handle = pool.apply_async(
        tasks.mark, (str(tmp_path / "ran"),), accept_callback=lambda pid, now: accepted.append(pid)
    )
    assert handle.state is HandleState.RUNNING
    os.kill(victim, signal.SIGKILL)

    assert handle.result(PATIENCE) != victim
    assert tasks.lines(tmp_path / "ran") == ["x"]
    assert accepted == [victim]


@both
def test_a_task_that_closes_all_descriptors_loses_its_slot_only(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)

    with pytest.raises(SlotLost):
        pool.apply_async(tasks.close_everything).result(PATIENCE)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


# -- signals


@both
def test_a_term_or_interrupt_to_the_children_cuts_no_task(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind, 2)
    gate = tmp_path / "gate"
    handles = [pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started"))) for _ in range(2)]
    turn_until(pool, lambda: len(tasks.lines(tmp_path / "started")) == 2)

    for pid in pids(pool):
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.killpg(pid, signum)
    gate.touch()

    assert [handle.result(PATIENCE) for handle in handles] == [handle.pid for handle in handles]
    for pid in pids(pool):
        os.kill(pid, signal.SIGUSR1)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@both
def test_children_lead_groups_of_their_own(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 2)
    ready(pool)

    assert [os.getpgid(pid) for pid in pids(pool)] == pids(pool)


@both
def test_a_process_started_by_a_task_has_ordinary_signals(make_pool: Make, kind: str) -> None:
    assert make_pool(kind).apply_async(tasks.terminate_own_process).result(PATIENCE) == -signal.SIGTERM


@both
def test_tasks_do_not_live_in_a_daemon(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind)

    assert pool.apply_async(tasks.claims_to_be_daemon).result(PATIENCE) is False
    assert pool.apply_async(tasks.nested_pool).result(PATIENCE) == 30
    assert pool.apply_async(tasks.fork_and_wait).result(PATIENCE) == 5


# -- limits


@both
def test_the_hard_limit_ends_a_task_that_sits_in_the_kernel(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 2)

    stuck = pool.apply_async(tasks.sleep_in_kernel, (60,), timeout_seconds=0.1)

    def deaf(seconds: float) -> HardTimeLimit | None:
        handle = pool.apply_async(tasks.swallow_everything, soft_timeout_seconds=seconds, timeout_seconds=2 * seconds)
        try:
            return pytest.fail(handle.result(PATIENCE))
        except SoftTimeLimit:  # before it stopped its ears
            return None
        except HardTimeLimit as error:
            return error

    assert struck_inside(deaf)
    with pytest.raises(HardTimeLimit):
        stuck.result(PATIENCE)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@both
def test_the_hard_limit_ends_what_the_task_had_started(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)

    def under_a_limit(seconds: float) -> list[str] | None:
        handle = pool.apply_async(tasks.leave_a_sleeper, (str(tmp_path / "pid"), "wait"), timeout_seconds=10 * seconds)
        with pytest.raises(HardTimeLimit):
            handle.result(10 * PATIENCE)
        return tasks.lines(tmp_path / "pid") or None

    (sleeper,) = struck_inside(under_a_limit)
    eventually(lambda: not tasks.alive(int(sleeper)))


@both
def test_a_crash_takes_the_processes_of_its_task_along(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)

    with pytest.raises(SlotLost):
        pool.apply_async(tasks.leave_a_sleeper, (str(tmp_path / "pid"), "die")).result(PATIENCE)
    (sleeper,) = tasks.lines(tmp_path / "pid")
    eventually(lambda: not tasks.alive(int(sleeper)))


@both
def test_a_job_is_ended_by_the_pid_of_its_slot_and_with_any_signal(make_pool: Make, kind: str, tmp_path: Path) -> None:
    pool = make_pool(kind)
    for signum in (signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT):
        started = tmp_path / f"started-{signum}"
        handle = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"), str(started)))
        turn_until(pool, lambda handle=handle, started=started: handle.pid and tasks.lines(started))
        assert pool.terminate_job(handle.pid, signum)
        with pytest.raises(Terminated):
            handle.result(PATIENCE)
    handle = pool.apply_async(tasks.until_soft_limit)
    turn_until(pool, lambda: handle.state is HandleState.RUNNING)
    # SIGUSR1 is the soft limit, now; it may come before the task's own code runs, so it is repeated.
    turn_until(pool, lambda: not pool.terminate_job(handle, signal.SIGUSR1) and handle.done)


# -- recycling


@both
def test_no_child_runs_more_tasks_than_it_may(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 2, max_tasks_per_child=20)

    ran_in = [pool.apply_async(os.getpid).result(PATIENCE) for _ in range(200)]

    per_child = {pid: ran_in.count(pid) for pid in ran_in}
    assert max(per_child.values()) <= 20
    assert len(per_child) >= 10
    ready(pool)
    turn_until(pool, lambda: pool.num_processes == 2)


@both
def test_one_task_per_child_is_exact(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 2, max_tasks_per_child=1)

    handles = [pool.apply_async(os.getpid) for _ in range(30)]

    assert len({handle.result(PATIENCE) for handle in handles}) == 30


def test_the_spare_is_there_before_its_predecessor_leaves(make_pool: Make, loop: EventLoop, tmp_path: Path) -> None:
    pool = make_pool("prefork+loop", 1, max_tasks_per_child=1)
    ready(pool)
    gate = tmp_path / "gate"

    last = pool.apply_async(tasks.wait_for, (str(gate),))

    turn_until(pool, lambda: [entry["state"] for entry in pool.info["slots"]].count("idle") == 1)
    assert not last.done
    assert pool.free_slots == 0  # the slot is taken, whoever stands behind it
    gate.touch()
    last.result(PATIENCE)
    assert pool.free_slots == 1


@both
def test_a_child_that_grew_is_replaced(make_pool: Make, kind: str) -> None:
    own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    pool = make_pool(kind, 1, max_memory_per_child_bytes=own + (60 << 20))
    small = [pool.apply_async(os.getpid).result(PATIENCE) for _ in range(3)]

    fat = pool.apply_async(tasks.hoard, (100 << 20,)).result(PATIENCE)

    assert set(small) == {fat}
    turn_until(pool, lambda: pids(pool) != [fat] and pool.num_processes == 1)
    assert pool.apply_async(os.getpid).result(PATIENCE) != fat


@both
def test_restart_puts_fresh_children_everywhere_without_losing_a_task(
    make_pool: Make, kind: str, tmp_path: Path
) -> None:
    pool = make_pool(kind, 4)
    ready(pool)
    before = set(pids(pool))
    running = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"),))

    pool.restart()
    handles = [pool.apply_async(tasks.add, (number,)) for number in range(50)]

    assert [handle.result(PATIENCE) for handle in handles] == list(range(50))
    turn_until(pool, lambda: len(before & set(pids(pool))) == 1)
    (tmp_path / "gate").touch()
    assert running.result(PATIENCE) in before
    turn_until(pool, lambda: not before & set(pids(pool)) and pool.free_slots == 4)
    turn_until(pool, lambda: pool.num_processes == 4)


def test_descriptors_do_not_leak_over_two_hundred_recycles(make_pool: Make, loop: EventLoop) -> None:
    pool = make_pool("prefork+loop", 2, max_tasks_per_child=1)
    for _ in range(10):
        pool.apply_async(tasks.add, (1,)).result(PATIENCE)
    turn_until(pool, lambda: pool.num_processes == 2 and pool.free_slots == 2)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(200):
        pool.apply_async(tasks.add, (1,)).result(PATIENCE)

    turn_until(pool, lambda: pool.num_processes == 2 and pool.free_slots == 2)
    assert len(os.listdir("/proc/self/fd")) == before


@both
def test_children_share_no_descriptor_of_the_pool(make_pool: Make, kind: str) -> None:
    before = set(tasks.open_descriptors().values())
    pool = make_pool(kind, 8)
    ready(pool)
    parent = set(tasks.open_descriptors().values()) - before
    handles = [pool.apply_async(tasks.open_descriptors) for _ in range(40)]

    for handle in handles:
        child = handle.result(PATIENCE)
        shared = sorted(parent & set(child.values()))
        # The two ends of its alive_pipe look the same, and the parent can read what is sent to it; nothing else, and
        # nothing of its seven siblings.
        assert [what.partition(":")[0] for what in shared] == ["pipe", "socket"]
        assert child[0] == "/dev/null"


def test_private_descriptors_are_not_shared(make_pool: Make, tmp_path: Path) -> None:
    with (tmp_path / "private").open("w") as private, (tmp_path / "shared").open("w") as shared:
        pool = make_pool("prefork", private_fds=lambda: [private.fileno()])
        found = pool.apply_async(tasks.open_descriptors).result(PATIENCE)
        assert found[private.fileno()] == "/dev/null"
        assert found[shared.fileno()] == shared.name
        pool.stop()


# -- starts


@both
def test_a_start_that_fails_is_tried_again_ever_more_slowly(
    make_pool: Make, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fine, births = tmp_path / "fine", tmp_path / "births"
    pool = make_pool(kind, 2, initializer=tasks.fail_unless, initargs=(str(fine), str(births)))
    handle = pool.apply_async(tasks.add, (1,))

    turn_until(pool, lambda: len(tasks.lines(births)) >= 7)
    # Two slots: of seven starts at least four are of one slot, with pauses of 0.1, 0.2 and 0.4 s between them, less a
    # quarter at most. A busy machine only makes them longer. No storm.
    began = sorted(float(line) for line in tasks.lines(births))
    assert began[6] - began[0] >= 0.75 * (0.1 + 0.2 + 0.4)
    assert "RuntimeError: not ready yet" in caplog.text
    assert not handle.done
    fine.touch()
    assert handle.result(PATIENCE) == 1


def test_a_pool_that_never_starts_can_be_stopped(make_pool: Make, tmp_path: Path) -> None:
    pool = make_pool(
        "prefork", 2, initializer=tasks.fail_unless, initargs=("/nowhere/at/all", str(tmp_path / "births"))
    )
    handle = pool.apply_async(tasks.add, (1,))

    pool.stop()

    assert isinstance(handle.error, SlotLost)


@both
def test_a_slow_start_is_waited_for(
    make_pool: Make, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pools.prefork.filling.SLOW_START_SECONDS", 0.05)
    gate, births = tmp_path / "gate", tmp_path / "births"
    pool = make_pool(kind, 1, initializer=tasks.wait_unless, initargs=(str(gate), str(births)))
    handle = pool.apply_async(tasks.add, (1,))

    turn_until(pool, lambda: tasks.lines(births) and caplog.text.count("is still starting") >= 2)
    assert (pool.free_slots, handle.done) == (0, False)
    gate.touch()

    assert handle.result(PATIENCE) == 1
    assert len(tasks.lines(births)) == 1


def test_registering_after_the_start_moves_everything_to_the_loop(make_pool: Make, loop: EventLoop) -> None:
    pool = make_pool("prefork", 2)
    before = [pool.apply_async(tasks.echo, (b"x" * 2_000_000,)) for _ in range(6)]

    pool.register_with_event_loop(loop)

    after = [pool.apply_async(tasks.add, (number,)) for number in range(10)]
    assert [len(handle.result(PATIENCE)) for handle in before] == [2_000_000] * 6
    assert [handle.result(PATIENCE) for handle in after] == list(range(10))


# -- ends


@both
@pytest.mark.parametrize("how", ["stop", "terminate"])
def test_nothing_runs_after_the_end(make_pool: Make, kind: str, how: str, tmp_path: Path) -> None:
    pool = make_pool(kind, 4, max_tasks_per_child=3)
    handles = [pool.apply_async(tasks.leave_a_sleeper, (str(tmp_path / "pids"),)) for _ in range(10)]
    for handle in handles:
        handle.result(PATIENCE)
    children = pids(pool)

    getattr(pool, how)()

    sleepers = [int(line) for line in tasks.lines(tmp_path / "pids")]
    eventually(lambda: not [pid for pid in (*children, *sleepers) if tasks.alive(pid)])
    assert (pool.state, pool.num_processes, pool.info["processes"]) == (PoolState.STOPPED, 0, [])


@both
def test_terminate_ends_the_deaf_and_the_starting(make_pool: Make, kind: str, tmp_path: Path) -> None:
    started = tmp_path / "started"
    pool = make_pool(kind, 3)
    busy = [pool.apply_async(tasks.sleep_in_kernel, (60, str(started))) for _ in range(3)]
    waiting = pool.apply_async(tasks.add, (1,))
    turn_until(pool, lambda: len(tasks.lines(started)) == 3)
    pool.grow(1)
    children = pids(pool)

    pool.terminate()

    assert not [pid for pid in children if tasks.alive(pid)]
    assert all(isinstance(handle.error, Terminated) for handle in busy)
    assert waiting.done


@both
def test_a_stop_that_takes_too_long_can_be_turned_into_an_end(make_pool: Make, kind: str, loop: EventLoop) -> None:
    pool = make_pool(kind, 2)
    handles = [pool.apply_async(time.sleep, (60,)) for _ in range(3)]
    turn_until(pool, lambda: pool.busy_slots == 2)
    assert pool.loop is not None

    pool.loop.call_soon_threadsafe(lambda: pool.loop and pool.loop.call_later(0.05, pool.terminate))
    pool.stop()

    assert all(isinstance(handle.error, Terminated) for handle in handles)
    assert pool.num_processes == 0


def test_a_pool_ends_though_its_loop_is_gone(make_pool: Make) -> None:
    loop = EventLoop()
    pool = get_pool("prefork", 2)
    pool.register_with_event_loop(loop)
    pool.start()
    children = pids(pool)
    loop.close()

    pool.stop()

    assert not [pid for pid in children if tasks.alive(pid)]


def test_children_start_without_standard_streams(make_pool: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    assert make_pool("prefork").apply_async(tasks.add, (1,)).result(PATIENCE) == 1


def test_slots_may_be_changed_before_the_start() -> None:
    pool = get_pool("prefork", 2)
    pool.grow(2)
    pool.shrink(1)
    pool.restart()
    assert not pool.terminate_job(1234)

    with pool:
        ready(pool)
        assert len(pids(pool)) == 3


def run_script(body: str, *args: str) -> subprocess.Popen[bytes]:
    script = textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", script, *args], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("given", [b"first\nsecond\n", None], ids=["a pipe", "the empty device"])
def test_a_child_reads_nothing_of_its_parents_standard_input(given: bytes | None) -> None:
    """Also not what the parent has read ahead."""
    program = """
        import sys
        from pools import get_pool
        from tests.pools import tasks
        line = sys.stdin.readline()
        with get_pool("prefork", 1) as pool:
            print(repr((line, pool.apply_async(tasks.read_input).result(60))))
    """
    words = [sys.executable, "-c", textwrap.dedent(program)]
    source = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, check=True, **source)  # type: ignore[call-overload]
    assert done.stdout.decode().strip() == repr(("first\n" if given else "", ""))


@pytest.mark.system
def test_nothing_survives_a_parent_that_is_killed(tmp_path: Path) -> None:
    started, sleepers = tmp_path / "started", tmp_path / "sleepers"
    parent = run_script(
        """
        import sys, time
        from pools import get_pool
        from tests.pools import tasks
        pool = get_pool("prefork", 3)
        pool.apply_async(tasks.sleep_in_kernel, (300, sys.argv[1]))
        pool.apply_async(tasks.leave_a_sleeper, (sys.argv[2], "wait"))
        while not (tasks.lines(tasks.Path(sys.argv[1])) and tasks.lines(tasks.Path(sys.argv[2]))):
            time.sleep(0.01)
        print(*pool.info["processes"], flush=True)
        time.sleep(300)
        """,
        str(started),
        str(sleepers),
    )
    assert parent.stdout is not None
    family = [int(pid) for pid in parent.stdout.readline().split()]
    family += [int(line) for line in tasks.lines(sleepers)]
    assert len(family) == 4
    assert all(tasks.alive(pid) for pid in family)

    parent.kill()
    parent.wait()
    parent.stdout.close()

    eventually(lambda: not [pid for pid in family if tasks.alive(pid)])


@pytest.mark.system
def test_a_program_that_forgets_its_pool_ends_all_the_same(tmp_path: Path) -> None:
    parent = run_script(
        """
        import time
        from pools import get_pool
        pool = get_pool("prefork", 3)
        print(pool.apply_async(pow, (2, 5)).result(), *pool.info["processes"], flush=True)
        pool.apply_async(time.sleep, (300,))
        """
    )
    out, _ = parent.communicate(timeout=PATIENCE)
    result, *children = map(int, out.split())

    assert (parent.returncode, result) == (0, 32)
    eventually(lambda: not [pid for pid in children if tasks.alive(pid)])


@both
def test_a_storm_of_crashes_limits_and_results_leaves_a_whole_pool(make_pool: Make, kind: str) -> None:
    pool = make_pool(kind, 4, max_tasks_per_child=7)
    handles = []
    for number in range(120):
        if number % 10 == 3:
            handles.append(pool.apply_async(os._exit, (1,)))
        elif number % 10 == 7:
            handles.append(pool.apply_async(time.sleep, (60,), timeout_seconds=0.05))
        else:
            handles.append(pool.apply_async(tasks.add, (number,)))
        if number % 25 == 0 and pids(pool):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids(pool)[0], signal.SIGKILL)

    for number, handle in enumerate(handles):
        try:
            assert handle.result(PATIENCE) == number
        except SlotLost:
            pass  # its own crash, or the killed child was busy with it
        except HardTimeLimit:
            assert number % 10 == 7
    assert sum(handle.state is HandleState.SUCCEEDED for handle in handles) >= 90
    ready(pool)
    turn_until(pool, lambda: pool.num_processes == 4)
    assert pool.busy_slots == 0
