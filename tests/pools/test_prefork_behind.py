"""Quick tasks that wait in the pipe of a busy child: each has one owner, whatever the child and the parent do."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pools import BasePool, EventLoop, HandleState, HardTimeLimit, SlotLost
from pools.handle import Handle
from pools.prefork import PreforkPool
from pools.prefork.child import ChildOptions, ForkOptions
from pools.prefork.children import Children
from pools.prefork.parent_link import ChildEnds, make_link
from pools.prefork.protocol import BEGUN, BEGUN_OFFSET, RESULT, Report, dump_result, send_report
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.slot import Child, ChildState, Job, Slot
from pools.prefork.task_pipe import PACKET_BYTES, TaskPipe, TaskReader, make_task_sockets
from tests.conftest import PATIENCE, eventually
from tests.pools import tasks
from tests.pools.test_contract import turn_until
from tests.pools.test_prefork import pids, ready

Make = Callable[..., BasePool]

NO_PID = 2**22 + 1
"""Greater than any pid of Linux: what asks for such a process hears that it is gone."""
QUICK = 1e-3


# -- the pipe


@pytest.mark.parametrize("size", [1, PACKET_BYTES - 1, PACKET_BYTES, PACKET_BYTES + 1, 3 * PACKET_BYTES, 2_000_003])
def test_a_task_of_any_size_arrives_whole(size: int) -> None:
    write_end, read_end = make_task_sockets()
    with write_end, read_end:
        write_end.setblocking(False)
        pipe, reader = TaskPipe(write_end, read_end), TaskReader(read_end)
        body = os.urandom(size)
        if pipe.send(7, body):
            assert reader.read() == (7, body)
            assert not pipe.pending
            return
        for _ in range(size // PACKET_BYTES + 1):  # a few packets at a time, as the pipe takes them
            head = read_end.recv(16 + PACKET_BYTES)
            assert head[8:16] == (7).to_bytes(8, "little")
            pipe.flush()
        assert not pipe.pending


def test_what_is_taken_back_is_not_read_and_a_large_task_counts_as_one() -> None:
    write_end, read_end = make_task_sockets()
    with write_end, read_end, read_end.dup() as unread:
        write_end.setblocking(False)
        pipe, reader = TaskPipe(write_end, unread), TaskReader(read_end)
        for number in (1, 2, 3):
            assert pipe.send_behind(number, b"x")
        assert reader.read() == (1, b"x")
        assert pipe.take_back() == {2, 3}
        pipe.send(4, bytes(50 * PACKET_BYTES))
        assert pipe.pending
        read_end.recv(10)  # a part of it is read, and its reader dies
        assert pipe.take_back() == {4}
        assert not pipe.pending
        assert pipe.take_back() == set()


def test_a_full_pipe_refuses_and_takes_nothing() -> None:
    write_end, read_end = make_task_sockets()
    with write_end, read_end:
        write_end.setblocking(False)
        pipe, sent = TaskPipe(write_end, read_end), set[int]()
        while pipe.send_behind(len(sent), bytes(PACKET_BYTES)):
            sent.add(len(sent))
        assert pipe.take_back() == sent


# -- who owns a task: every order of what parent and child may do


class PlayedChild:
    """A child process as its parent sees it, played by the test: it reads, begins, reports, dies."""

    def __init__(self, index: int) -> None:
        link, self.ends = make_link(inherited=True)
        self.child = Child(Slot(index), NO_PID, link, RecycleLimits())
        self.child.slot.child = self.child
        self.child.state = ChildState.IDLE
        self.reader = TaskReader(self.ends.tasks)
        self.read: int | None = None
        self.begun: int | None = None

    def has_mail(self) -> bool:
        return bool(select.select([self.ends.tasks], [], [], 0)[0])

    def close(self) -> None:
        _close(self.ends)
        self.child.link.close()


def _close(ends: ChildEnds) -> None:
    ends.socket.close()
    ends.tasks.close()
    if ends.alive_pipe >= 0:
        os.close(ends.alive_pipe)
        ends.alive_pipe = -1


class Owners(RuleBasedStateMachine):
    """Two children. ``waiting``: with the parent.  begun: how often each task was.  over: how each ended."""

    @initialize()
    def start(self) -> None:
        self.loop = EventLoop()
        self.children = Children(
            self,
            ChildOptions(),
            ForkOptions(),
            start_method="fork",
            limits=RecycleLimits(),
            log=logging.getLogger(__name__),
            on_start=lambda: None,
        )
        self.children.filling.active = False
        self.children.move_to(self.loop)
        self.played = [PlayedChild(0), PlayedChild(1)]
        self.waiting: deque[Job] = deque()
        self.made = 0
        self.begun: Counter[int] = Counter()
        self.over: dict[int, str] = {}

    # -- what the parent hears from ``Children``

    def on_ready(self, child: Child) -> None:
        assert (child.job, len(child.behind)) == (None, 0)

    def on_unready(self, child: Child) -> None:
        pass

    def on_report(self, child: Child, report: Report) -> None:
        assert child.job is not None
        assert child.job.number == report.job
        self.over[child.end_job().number] = "reported"
        self.children.after_task(child)

    def on_begun(self, child: Child, job: Job) -> None:
        job.handle.begin(child.slot.index, child.pid, 0.0)

    def on_not_begun(self, job: Job) -> None:
        job.handle.put_back()

    def on_taken_back(self, jobs: Sequence[Job]) -> None:
        assert all(job.handle.state is HandleState.WAITING for job in jobs)
        self.waiting.extendleft(reversed(jobs))

    def on_dead(self, child: Child, exit_code: int | None) -> None:
        raise AssertionError("the machine buries its children itself")

    def on_start_failed(self, problem: str, *, attempts: int) -> None:
        raise AssertionError("nothing is started")

    def tell_slot(self, index: int, pid: int, state: str) -> None:
        pass

    # -- the parent

    @rule()
    def make(self) -> None:
        self.made += 1
        handle = Handle(BasePool(), "", None, None, None, None, QUICK)
        self.waiting.append(Job(self.made, handle, b"body"))

    @rule(which=st.integers(0, 1))
    def give(self, which: int) -> None:
        child = self.played[which].child
        if self.waiting and child.state is ChildState.IDLE:
            job = self.waiting.popleft()
            self.children.pipes.send(child, job)
            child.state = ChildState.BUSY
            self.on_begun(child, job)

    @rule(which=st.integers(0, 1))
    def give_behind(self, which: int) -> None:
        child = self.played[which].child
        if self.waiting and child.room(1.0) > 0:
            assert child.send_behind(self.waiting[0])
            self.waiting.popleft()

    @rule(which=st.integers(0, 1))
    def hear(self, which: int) -> None:
        self.children._io.hear(self.played[which].child)

    @rule(which=st.integers(0, 1))
    def recall(self, which: int) -> None:
        child = self.played[which].child
        self.children.pipes.recall(child)
        assert len(child.behind) == 0
        if child.job is not None:  # what is thought to run is what runs, or is the first that will
            played = self.played[which]
            assert played.read in (None, child.job.number)
            assert played.begun in (None, child.job.number)

    @rule(which=st.integers(0, 1), leaves=st.booleans())
    def renew(self, which: int, leaves: bool) -> None:
        """The child is to leave its slot after its task; or it may stay after all."""
        child = self.played[which].child
        if child.job is None:
            return
        if leaves:
            self.children.retire(child)
        child.leaving = False

    # -- the children

    @rule(which=st.integers(0, 1))
    def read(self, which: int) -> None:
        played = self.played[which]
        if played.read is None and played.begun is None and played.has_mail():
            task = played.reader.read()
            assert task is not None
            played.read = task[0]

    @rule(which=st.integers(0, 1))
    def go_on(self, which: int) -> None:
        """Begin what it has read, or end what it has begun."""
        played = self.played[which]
        if played.read is not None:
            played.begun, played.read = played.read, None
            BEGUN.pack_into(played.ends.open_signal_page(), BEGUN_OFFSET, played.begun)
            self.begun[played.begun] += 1
        elif played.begun is not None:
            send_report(played.ends.socket, RESULT, played.begun, 0.0, 0.0, 0, dump_result(None))
            played.begun = None

    @precondition(lambda self: self.made)
    @rule(which=st.integers(0, 1))
    def die(self, which: int) -> None:
        played = self.played[which]
        child = played.child
        _close(played.ends)
        child.gone = True
        child.reports.extend(child.inbox.drain())
        self.children._io._tell(child)
        self.children.pipes.take_from_dead(child)
        if (job := child.job) is not None:
            if child.died_before_beginning:
                job.handle.put_back()
                self.waiting.appendleft(job)
            else:
                assert job.number == played.begun
                self.over[job.number] = "lost"
        assert len(child.behind) == 0
        played.close()
        self.played[which] = PlayedChild(which)

    # -- what holds

    @invariant()
    def each_task_has_one_owner(self) -> None:
        if not hasattr(self, "played"):
            return
        owned = [job.number for job in self.waiting] + list(self.over)
        for played in self.played:
            child = played.child
            owned += [job.number for job in ((child.job,) if child.job is not None else ())]
            owned += [job.number for job in child.behind]
        assert sorted(owned) == list(range(1, self.made + 1))
        assert all(count == 1 for count in self.begun.values())

    def teardown(self) -> None:
        if not hasattr(self, "played"):
            return
        for _ in range(20 * (self.made + 1)):
            for which in (0, 1):
                self.read(which)
                self.go_on(which)
                self.hear(which)
                self.give(which)
        assert set(self.over) == set(range(1, self.made + 1)), "a task was lost on its way"
        assert set(self.begun) == set(self.over)
        for played in self.played:
            played.close()
        self.loop.close()


Owners.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestOwners = Owners.TestCase


def test_a_limit_that_strikes_when_its_task_is_over_finds_the_next_one_running() -> None:
    world = Owners()
    world.start()
    for step in (world.make, world.make):
        step()
    for on_child in (world.give, world.give_behind, world.read, world.go_on, world.go_on, world.read, world.go_on):
        on_child(0)
    child = world.played[0].child
    assert child.job is not None
    assert (child.job.number, world.over) == (1, {})  # as far as the parent knows
    world.recall(0)
    assert child.job is not None
    assert (child.job.number, world.over) == (2, {1: "reported"})
    world.teardown()


# -- with real children


def quick_pool(make_pool: Make, slots: int, **options: object) -> PreforkPool:
    """Its loop is the test's: nothing happens while the test does not turn it."""
    pool = make_pool("prefork+loop", slots, **options)
    assert isinstance(pool, PreforkPool)
    ready(pool)
    pool.quick_seconds = 10 * QUICK
    return pool


def behind(pool: PreforkPool) -> list[int]:
    """How many lie in the pipe of each child that has some."""
    return [len(child.behind) for child in pool._children.alive if child.behind]


def hold(pool: PreforkPool, gate: Path) -> Handle:
    """A task that was expected to be quick, and has begun to wait for its gate."""
    started = gate.with_suffix(".started")
    handle = pool.apply_async(tasks.wait_for, (str(gate), str(started)), expected_seconds=QUICK)
    eventually(started.exists)
    return handle


@pytest.mark.parametrize("stopped", [False, True])
def test_a_task_behind_one_that_is_stuck_goes_to_another_child(
    make_pool: Make, tmp_path: Path, *, stopped: bool
) -> None:
    pool = quick_pool(make_pool, 2)
    stuck, other = hold(pool, tmp_path / "stuck"), hold(pool, tmp_path / "other")
    if stopped:
        os.kill(stuck.pid, signal.SIGSTOP)
    waiting = [pool.apply_async(tasks.mark, (str(tmp_path / "ran"), str(n)), expected_seconds=QUICK) for n in range(4)]
    assert behind(pool) == [2, 2]

    (tmp_path / "other").touch()
    assert {handle.result(PATIENCE) for handle in waiting} == {other.pid}
    assert sorted(tasks.lines(tmp_path / "ran")) == ["0", "1", "2", "3"]
    assert not stuck.done

    if stopped:
        os.kill(stuck.pid, signal.SIGCONT)
    (tmp_path / "stuck").touch()
    assert stuck.result(PATIENCE) == stuck.pid
    assert sorted(tasks.lines(tmp_path / "ran")) == ["0", "1", "2", "3"]


def test_a_task_behind_one_whose_child_is_killed_runs_once_elsewhere(make_pool: Make, tmp_path: Path) -> None:
    pool = quick_pool(make_pool, 1)
    killed = hold(pool, tmp_path / "never")
    began: list[int] = []
    waiting = [
        pool.apply_async(
            tasks.mark,
            (str(tmp_path / "ran"), str(number)),
            expected_seconds=QUICK,
            accept_callback=lambda pid, _: began.append(pid),
        )
        for number in range(3)
    ]
    assert (behind(pool), began) == ([3], [])

    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(SlotLost):
        killed.result(PATIENCE)
    ran_in = {handle.result(PATIENCE) for handle in waiting}
    assert killed.pid not in ran_in
    assert began == [*ran_in] * 3
    assert tasks.lines(tmp_path / "ran") == ["0", "1", "2"]


def test_a_hard_limit_ends_its_own_task_alone(make_pool: Make, tmp_path: Path) -> None:
    pool = quick_pool(make_pool, 1)
    limited = pool.apply_async(tasks.wait_for, (str(tmp_path / "never"),), expected_seconds=QUICK, timeout_seconds=0.1)
    waiting = pool.apply_async(tasks.add, (1,), expected_seconds=QUICK)
    assert behind(pool) == [1]
    with pytest.raises(HardTimeLimit):
        limited.result(PATIENCE)
    assert waiting.result(PATIENCE) == 1
    assert waiting.pid != limited.pid


def test_what_lies_in_a_pipe_is_taken_back_and_never_runs(make_pool: Make, tmp_path: Path) -> None:
    pool = quick_pool(make_pool, 1)
    first = hold(pool, tmp_path / "gate")
    marks = [pool.apply_async(tasks.mark, (str(tmp_path / "ran"), name), expected_seconds=QUICK) for name in "abcd"]
    assert behind(pool) == [4]
    assert marks[0].cancel()
    assert pool.terminate_job(marks[1])
    assert pool.take_back([first, marks[2]]) == [marks[2]]
    assert [handle.state for handle in marks[:3]] == [HandleState.CANCELLED] * 3
    (tmp_path / "gate").touch()
    marks[3].result(PATIENCE)
    assert tasks.lines(tmp_path / "ran") == ["d"]


def test_a_task_that_is_long_or_not_known_is_behind_nothing_and_has_nothing_behind_it(
    make_pool: Make, tmp_path: Path
) -> None:
    pool = quick_pool(make_pool, 2)
    hold(pool, tmp_path / "quick")
    unknown = pool.apply_async(tasks.wait_for, (str(tmp_path / "unknown"),))
    assert pool.room_for_quick == 4
    long = [pool.apply_async(tasks.add, (1,), expected_seconds=seconds) for seconds in (0.0, 1.0)]
    large = pool.apply_async(len, (bytes(2 * PACKET_BYTES),), expected_seconds=QUICK)
    assert behind(pool) == []
    quick = [pool.apply_async(tasks.add, (2,), expected_seconds=QUICK) for _ in range(3)]
    assert behind(pool) == []  # they do not overtake what came before
    (tmp_path / "quick").touch()
    assert [handle.result(PATIENCE) for handle in [*long, large, *quick]] == [1, 1, 2 * PACKET_BYTES, 2, 2, 2]
    assert not unknown.done


def test_a_child_gets_no_more_tasks_than_it_may_run(make_pool: Make, tmp_path: Path) -> None:
    pool = quick_pool(make_pool, 1, max_tasks_per_child=3)
    first = hold(pool, tmp_path / "gate")
    more = [pool.apply_async(os.getpid, expected_seconds=QUICK) for _ in range(8)]
    assert behind(pool) == [2]
    (tmp_path / "gate").touch()
    ran_in = Counter([first.result(PATIENCE), *(handle.result(PATIENCE) for handle in more)])
    assert ran_in.total() == 9
    assert max(ran_in.values()) <= 3


@pytest.mark.parametrize("how", ["shrink", "restart"])
def test_a_child_that_leaves_takes_nothing_with_it(make_pool: Make, tmp_path: Path, how: str) -> None:
    pool = quick_pool(make_pool, 2)
    held = [hold(pool, tmp_path / name) for name in ("one", "two")]
    before = set(pids(pool))
    more = [pool.apply_async(os.getpid, expected_seconds=QUICK) for _ in range(8)]
    assert behind(pool) == [4, 4]
    if how == "shrink":
        pool.shrink()
    else:
        pool.restart()
        turn_until(pool, lambda: not behind(pool))
    for name in ("one", "two"):
        (tmp_path / name).touch()
    assert {handle.result(PATIENCE) for handle in held} == before
    assert len([handle.result(PATIENCE) for handle in more]) == 8


def test_stopping_waits_for_what_lies_in_pipes_and_terminating_does_not(make_pool: Make, tmp_path: Path) -> None:
    stopped, ended = (quick_pool(make_pool, 1) for _ in range(2))
    for pool, name in ((stopped, "stopped"), (ended, "ended")):
        hold(pool, tmp_path / f"{name}.gate")
        for _ in range(2):
            pool.apply_async(tasks.mark, (str(tmp_path / name),), expected_seconds=QUICK)
        assert behind(pool) == [2]
    (tmp_path / "stopped.gate").touch()
    stopped.stop()
    ended.terminate()
    assert len(tasks.lines(tmp_path / "stopped")) == 2
    assert not (tmp_path / "ended").exists()
