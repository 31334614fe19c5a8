"""Prefork with every start method: what must hold whether a child is forked, spawned or comes out of a zygote."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from pools import BasePool, EventLoop, HandleState, HardTimeLimit, PoolUnavailable, SlotLost, Terminated, Unpicklable
from pools.errors import SoftTimeLimit
from pools.prefork.pool import PreforkPool
from pools.prefork.zygote import ForkServer
from tests.conftest import PATIENCE, eventually
from tests.limits import struck_inside
from tests.pools import tasks
from tests.pools.test_contract import turn_until

Make = Callable[..., BasePool]

every_method = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
fresh_methods = pytest.mark.parametrize("method", ["spawn", "forkserver"])


def pids(pool: BasePool) -> list[int]:
    return list(pool.info["processes"])


def ready(pool: BasePool) -> None:
    turn_until(pool, lambda: pool.free_slots == pool.limit)


def zygote_of(pool: BasePool) -> ForkServer:
    return cast(ForkServer, cast(PreforkPool, pool)._children.filling.start_method)


# -- the essentials


@every_method
def test_tasks_run_in_children_that_were_prepared(make_pool: Make, method: str) -> None:
    pool = make_pool("prefork+loop", 2, start_method=method, initializer=tasks.initialize, initargs=("ready",))

    assert [pool.apply_async(tasks.add, (n, 1)).result(PATIENCE) for n in range(20)] == list(range(1, 21))
    assert pool.apply_async(tasks.initialized).result(PATIENCE)[-1] == "ready"
    with pytest.raises(ValueError, match="boom"):
        pool.apply_async(tasks.fail, ("boom",)).result(PATIENCE)
    assert len(pool.apply_async(tasks.echo, (b"x" * 3_000_000,)).result(PATIENCE)) == 3_000_000


@every_method
def test_limits_and_terminate_reach_the_task(make_pool: Make, method: str, tmp_path: Path) -> None:
    # The initializer also imports the module, so that no limit strikes while that goes on.
    pool = make_pool("prefork+loop", 3, start_method=method, initializer=tasks.initialize, initargs=("ready",))
    ready(pool)

    def caught(seconds: float) -> object:
        try:
            return pool.apply_async(tasks.until_soft_limit, soft_timeout_seconds=seconds).result(PATIENCE)
        except SoftTimeLimit:  # before it came to its ``try``
            return None

    hard = pool.apply_async(tasks.sleep_in_kernel, (60,), timeout_seconds=0.2)
    ended = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"), str(tmp_path / "started")))
    turn_until(pool, lambda: tasks.lines(tmp_path / "started"))
    assert pool.terminate_job(ended)

    assert struck_inside(caught) == "cleaned up"
    with pytest.raises(HardTimeLimit):
        hard.result(PATIENCE)
    with pytest.raises(Terminated):
        ended.result(PATIENCE)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


def test_a_soft_limit_that_strikes_while_arguments_are_loaded_is_not_lost(make_pool: Make, tmp_path: Path) -> None:
    path, gate = tmp_path / "ran", tmp_path / "gate"
    pool = make_pool("prefork+loop", on_soft_timeout=lambda handle: gate.touch())
    ready(pool)

    handle = pool.apply_async(tasks.mark, (str(path), tasks.SlowToLoad(str(gate))), soft_timeout_seconds=0.1)

    with pytest.raises(SoftTimeLimit):
        handle.result(PATIENCE)
    assert tasks.lines(path) == []


@every_method
@pytest.mark.parametrize("call", [("exit", 3), ("signal", 11)])
def test_a_crash_is_told_by_its_name(make_pool: Make, method: str, call: tuple[str, int]) -> None:
    kind, number = call
    pool = make_pool("prefork+loop", 2, start_method=method)
    crash = pool.apply_async(os._exit if kind == "exit" else tasks.die, (number,))

    with pytest.raises(SlotLost, match="exit code 3" if kind == "exit" else "SIGSEGV") as lost:
        crash.result(PATIENCE)
    assert lost.value.exit_code == (number if kind == "exit" else -number)
    assert f"pid {crash.pid}" in str(lost.value)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1
    ready(pool)


@every_method
def test_a_term_to_the_groups_cuts_no_task(make_pool: Make, method: str, tmp_path: Path) -> None:
    pool = make_pool("prefork+loop", 2, start_method=method)
    gate = tmp_path / "gate"
    handles = [pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started"))) for _ in range(2)]
    turn_until(pool, lambda: len(tasks.lines(tmp_path / "started")) == 2)

    groups = [*pids(pool), *([zygote_of(pool).pid] if method == "forkserver" else [])]
    assert [os.getpgid(pid) for pid in groups] == groups
    for pid in groups:
        for signum in (signal.SIGTERM, signal.SIGINT):
            os.killpg(pid, signum)
    gate.touch()

    assert [handle.result(PATIENCE) for handle in handles] == [handle.pid for handle in handles]
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1


@every_method
def test_a_task_may_start_processes_and_they_go_with_its_child(make_pool: Make, method: str, tmp_path: Path) -> None:
    pool = make_pool("prefork+loop", 1, start_method=method)

    assert pool.apply_async(tasks.claims_to_be_daemon).result(PATIENCE) is False
    assert pool.apply_async(tasks.fork_and_wait).result(PATIENCE) == 5
    assert pool.apply_async(tasks.squares_in_processes, (5,)).result(PATIENCE) == [0, 1, 4, 9, 16]
    with pytest.raises(SlotLost):
        pool.apply_async(tasks.leave_a_sleeper, (str(tmp_path / "pid"), "die")).result(PATIENCE)
    (sleeper,) = tasks.lines(tmp_path / "pid")
    eventually(lambda: not tasks.alive(int(sleeper)))


@every_method
@pytest.mark.parametrize("own", ["fork", "spawn", "forkserver"])
def test_a_task_may_use_multiprocessing_with_every_start_method(make_pool: Make, method: str, own: str) -> None:
    pool = make_pool("prefork+loop", 1, start_method=method)

    assert pool.apply_async(tasks.squares_by_method, (own, 4)).result(PATIENCE) == [0, 1, 4, 9]
    assert pool.apply_async(tasks.squares_of_loader, (own, 3)).result(PATIENCE) == [0, 1, 4]


@every_method
def test_both_multiprocessing_libraries_know_the_process_of_a_slot(make_pool: Make, method: str) -> None:
    pool = make_pool("prefork+loop", 1, start_method=method)

    assert pool.apply_async(tasks.name_and_index).result(PATIENCE) == ("slot-0", 0, "slot-0", 0)
    assert pool.apply_async(tasks.shared_by_manager).result(PATIENCE) == [1, 2]


@every_method
def test_the_pool_grows_and_shrinks_under_load(make_pool: Make, method: str) -> None:
    pool = make_pool("prefork+loop", 2, start_method=method)
    handles = [pool.apply_async(tasks.add, (number,)) for number in range(100)]
    pool.grow(2)
    handles += [pool.apply_async(tasks.add, (number,)) for number in range(100, 200)]
    handles[50].result(PATIENCE)
    pool.shrink(3)

    assert [handle.result(PATIENCE) for handle in handles] == list(range(200))
    turn_until(pool, lambda: pool.num_processes == 1)


@every_method
def test_recycling_leaves_no_descriptor_and_no_zombie_behind(make_pool: Make, method: str) -> None:
    pool = make_pool("prefork+loop", 2, start_method=method, max_tasks_per_child=1)
    settled = lambda: pool.num_processes == 2 and pool.free_slots == 2  # noqa: E731
    turn_until(pool, settled)
    before = len(os.listdir("/proc/self/fd"))

    ran_in = {pool.apply_async(os.getpid).result(PATIENCE) for _ in range(20)}

    assert len(ran_in) == 20
    turn_until(pool, settled)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not [pid for pid in ran_in if Path(f"/proc/{pid}").exists()]


@every_method
def test_stop_ends_every_process_and_closes_every_descriptor(make_pool: Make, method: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pool = make_pool("prefork+loop", 3, start_method=method)
    ready(pool)
    processes = [*pids(pool), *([zygote_of(pool).pid] if method == "forkserver" else [])]

    pool.stop()

    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert len(os.listdir("/proc/self/fd")) == before


@every_method
@pytest.mark.parametrize("how", ["recycled", "stopped", "ended"])
def test_every_child_runs_the_finalizer_once(
    make_pool: Make, method: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pools.prefork.children.END_SECONDS", PATIENCE)
    monkeypatch.setattr("pools.prefork.children.LEAVE_SECONDS", PATIENCE)
    finished = tmp_path / "finished"
    pool = make_pool(
        "prefork+loop",
        1,
        start_method=method,
        max_tasks_per_child=1 if how == "recycled" else None,
        finalizer=partial(tasks.mark_pid, str(finished)),
    )
    ran_in = [pool.apply_async(os.getpid).result(PATIENCE)]
    if how == "ended":
        handle = pool.apply_async(tasks.wait_for, (str(tmp_path / "gate"), str(tmp_path / "started")))
        turn_until(pool, lambda: tasks.lines(tmp_path / "started"))
        pool.terminate_job(handle)
    turn_until(pool, lambda: how == "stopped" or tasks.lines(finished))
    pool.stop()

    said = [int(line) for line in tasks.lines(finished)]
    assert ran_in[0] in said
    assert len(said) == len(set(said))


# -- fresh interpreters


@fresh_methods
def test_children_inherit_nothing(make_pool: Make, method: str, tmp_path: Path) -> None:
    tasks.INITIALIZED.append("only in the parent")
    with (tmp_path / "open").open("w") as inheritable:
        os.set_inheritable(inheritable.fileno(), True)
        pool = make_pool("prefork+loop", 3, start_method=method)
        ready(pool)

        assert pool.apply_async(tasks.initialized).result(PATIENCE) == []
        mine = set(tasks.open_descriptors().values())
        for handle in [pool.apply_async(tasks.open_descriptors) for _ in range(12)]:
            found = handle.result(PATIENCE)
            extra = {number: what for number, what in found.items() if number > 2}
            shared = [what for what in extra.values() if what in mine and what.startswith(("pipe:", "socket:"))]
            # Both ends of the alive pipe look the same, and the parent can read what is sent to the child. Nothing else
            # is shared with the parent; the socket for reports is the child's own.
            assert sorted(what.partition(":")[0] for what in shared) == ["pipe", "socket"]
            assert sum(what.startswith("socket:") for what in extra.values()) == 2
            assert inheritable.name not in found.values()
            assert found[0] == "/dev/null"
    tasks.INITIALIZED.clear()


@fresh_methods
def test_preload_runs_once_per_interpreter(make_pool: Make, method: str, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    pool = make_pool("prefork+loop", 2, start_method=method, preload=partial(tasks.mark_pid, str(loads)))
    ready(pool)

    loaded_in = [int(line) for line in tasks.lines(loads)]
    assert sorted(loaded_in) == (sorted(pids(pool)) if method == "spawn" else [zygote_of(pool).pid])


@fresh_methods
def test_a_preload_that_fails_is_told_and_tried_again(
    make_pool: Make, method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fine, births = tmp_path / "fine", tmp_path / "births"
    pool = make_pool("prefork+loop", 1, start_method=method, preload=partial(tasks.fail_unless, str(fine), str(births)))
    handle = pool.apply_async(tasks.add, (1,))

    turn_until(pool, lambda: len(tasks.lines(births)) >= 2)
    assert "RuntimeError: not ready yet" in caplog.text
    assert "next try in" in caplog.text
    fine.touch()
    assert handle.result(PATIENCE) == 1


@fresh_methods
def test_a_pool_whose_preload_never_works_can_be_stopped(make_pool: Make, method: str, tmp_path: Path) -> None:
    preload = partial(tasks.fail_unless, "/nowhere/at/all", str(tmp_path / "births"))
    pool = make_pool("prefork+loop", 2, start_method=method, preload=preload)
    handle = pool.apply_async(tasks.add, (1,))

    pool.stop()

    assert isinstance(handle.error, SlotLost)


@fresh_methods
def test_what_cannot_travel_to_the_children_is_refused_at_once(method: str) -> None:
    pool = PreforkPool(1, start_method=method, initializer=tasks.make_lambda())
    with pytest.raises(Unpicklable, match="cannot be sent to them"):
        pool.start()
    pool.terminate()


def test_an_unknown_start_method_is_refused() -> None:
    with pytest.raises(PoolUnavailable) as refused:
        PreforkPool(1, start_method="clone")
    assert "forkserver" in refused.value.hint


def run_script(path: Path, body: str, *args: str) -> subprocess.Popen[str]:
    path.write_text(textwrap.dedent(body))
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.Popen(
        [sys.executable, str(path), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@fresh_methods
def test_functions_of_the_program_itself_are_found(method: str, tmp_path: Path) -> None:
    program = run_script(
        tmp_path / "program.py",
        """
        import sys
        from pools import get_pool

        def double(number):
            return 2 * number

        if __name__ == "__main__":
            with get_pool("prefork", 1, start_method=sys.argv[1]) as pool:
                print(pool.apply_async(double, (21,)).result())
        """,
        method,
    )
    out, err = program.communicate(timeout=PATIENCE)
    assert (out, err, program.returncode) == ("42\n", "", 0)


# -- the zygote


def test_the_zygote_runs_nothing_and_is_the_only_one_that_forks(make_pool: Make) -> None:
    pool = make_pool("prefork+loop", 2, start_method="forkserver", initializer=tasks.initialize, initargs=("here",))
    ready(pool)
    zygote = zygote_of(pool).pid

    parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids(pool)}
    assert parents == {zygote}
    assert pool.apply_async(tasks.initialized).result(PATIENCE) == ["here"]  # once: not in the zygote before


def test_a_zygote_that_dies_is_replaced_and_costs_no_task(
    make_pool: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool("prefork+loop", 2, start_method="forkserver")
    ready(pool)
    first = zygote_of(pool).pid
    gate = tmp_path / "gate"
    running = pool.apply_async(tasks.wait_for, (str(gate), str(tmp_path / "started")))
    turn_until(pool, lambda: tasks.lines(tmp_path / "started"))

    os.kill(first, signal.SIGKILL)
    turn_until(pool, lambda: zygote_of(pool).ready and zygote_of(pool).pid != first)
    assert "died (killed by SIGKILL)" in caplog.text
    gate.touch()

    assert running.result(PATIENCE) == running.pid
    orphan = pool.apply_async(os._exit, (1,))
    with pytest.raises(SlotLost):
        orphan.result(PATIENCE)
    ready(pool)
    assert zygote_of(pool).pid != first


def test_a_crash_while_there_is_no_zygote_waits_for_the_next(make_pool: Make) -> None:
    pool = make_pool("prefork+loop", 1, start_method="forkserver")
    ready(pool)
    (child,) = pids(pool)

    os.kill(zygote_of(pool).pid, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)

    assert pool.apply_async(os.getpid).result(PATIENCE) != child


def test_a_zygote_that_hangs_is_killed_and_replaced(make_pool: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool("prefork+loop", 1, start_method="forkserver")
    ready(pool)
    first = zygote_of(pool).pid
    os.kill(first, signal.SIGSTOP)

    with monkeypatch.context() as hurried:
        hurried.setattr("pools.prefork.zygote.ANSWER_SECONDS", 0.2)
        pool.grow(1)
        turn_until(pool, lambda: zygote_of(pool).pid != first)
    turn_until(pool, lambda: pool.free_slots == 2)
    assert zygote_of(pool).pid != first
    assert not Path(f"/proc/{first}").exists()


def test_registering_with_a_loop_takes_the_zygote_along(make_pool: Make, loop: EventLoop) -> None:
    pool = make_pool("prefork", 2, start_method="forkserver")
    handle = pool.apply_async(tasks.add, (1,))

    pool.register_with_event_loop(loop)

    assert handle.result(PATIENCE) == 1
    assert handle.state is HandleState.SUCCEEDED
    with pytest.raises(SlotLost):
        pool.apply_async(os._exit, (1,)).result(PATIENCE)
    ready(pool)


# -- systems without pidfds


def no_pidfd(pid: int) -> int:
    raise OSError(errno.ENOSYS, f"not for {pid}")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_deaths_are_noticed_without_pidfds_too(make_pool: Make, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    pool = make_pool("prefork+loop", 2, start_method=method)

    with pytest.raises(SlotLost, match="exit code 4"):
        pool.apply_async(os._exit, (4,)).result(PATIENCE)
    ready(pool)
    os.kill(pids(pool)[0], signal.SIGKILL)
    assert [pool.apply_async(tasks.add, (n,)).result(PATIENCE) for n in range(5)] == list(range(5))
    turn_until(pool, lambda: pool.free_slots == 2)


def test_a_zygote_without_pidfds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    pool = PreforkPool(1, start_method="forkserver")
    with pytest.raises(PoolUnavailable, match="pidfd"):
        pool.start()
    pool.terminate()


# -- the end of the parent


@pytest.mark.system
@every_method
@pytest.mark.parametrize("when", ["working", "starting"])
def test_nothing_survives_a_parent_that_is_killed(method: str, when: str, tmp_path: Path) -> None:
    started, sleepers, births = tmp_path / "started", tmp_path / "sleepers", tmp_path / "births"
    parent = run_script(
        tmp_path / "parent.py",
        """
        import sys, time
        from functools import partial
        from pathlib import Path
        from pools import EventLoop, get_pool
        from tests.pools import tasks

        def main():
            method, when, started, sleepers, births = sys.argv[1:]
            hook = "preload" if method != "fork" else "initializer"
            starting = {hook: partial(tasks.wait_unless, "/nowhere", births)} if when == "starting" else {}
            pool = get_pool("prefork", 3, start_method=method, **starting)
            pool.start()
            if when == "working":
                pool.apply_async(tasks.sleep_in_kernel, (300, started))
                pool.apply_async(tasks.leave_a_sleeper, (sleepers, "wait"))
                while not (tasks.lines(Path(started)) and tasks.lines(Path(sleepers))):
                    time.sleep(0.01)
            else:
                tasks.wait_for(births)
            zygote = getattr(pool._children.filling.start_method, "pid", None)
            print(*pool.info["processes"], *([zygote] if zygote else []), flush=True)
            time.sleep(300)

        if __name__ == "__main__":
            main()
        """,
        method,
        when,
        *map(str, (started, sleepers, births)),
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    family = [int(pid) for pid in parent.stdout.readline().split()]
    family += [int(line) for line in tasks.lines(sleepers)]
    assert family
    assert all(tasks.alive(pid) for pid in family)

    parent.kill()
    parent.wait()
    parent.stdout.close()
    parent.stderr.close()

    eventually(lambda: not [pid for pid in family if tasks.alive(pid)])


@every_method
def test_a_soft_limit_ends_a_task_that_computes(make_pool: Make, method: str) -> None:
    pool = make_pool("prefork+loop", 1, start_method=method)

    with pytest.raises(SoftTimeLimit):
        pool.apply_async(tasks.busy_for, (60,), soft_timeout_seconds=0.2).result(PATIENCE)
    assert pool.apply_async(tasks.add, (1,)).result(PATIENCE) == 1
