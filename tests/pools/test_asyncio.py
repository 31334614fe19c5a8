"""What only the asyncio pool promises: coroutines on one loop, and limits that come at an await."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pools import EventLoop, Handle, HardTimeLimit, Killed, SoftTimeLimit, Terminated, get_pool
from pools.asyncio import complete
from tests.conftest import PATIENCE, eventually
from tests.limits import struck_inside
from tests.pools import tasks

WORD = contextvars.ContextVar("word", default="nothing")


async def add(a: int, b: int = 0) -> int:
    await asyncio.sleep(0)
    return a + b


async def meet(arrived: list[int], number: int, gate: threading.Event) -> int:
    arrived.append(number)
    while not gate.is_set():
        await asyncio.sleep(0.005)
    return number


async def hold_loop(holds: threading.Event, gate: threading.Event) -> None:
    holds.set()
    gate.wait(PATIENCE)  # without an await: nobody else gets the loop


async def where() -> tuple[str, int]:
    return threading.current_thread().name, id(asyncio.get_running_loop())


def test_coroutines_share_one_loop_in_a_thread_of_its_own() -> None:
    with get_pool("asyncio", 4) as pool:
        places = {pool.apply_async(where).result(PATIENCE) for _ in range(10)}

        assert len(places) == 1
        assert places.pop()[0] == "pool-asyncio"
        assert pool.apply_async(add, (1,), {"b": 2}).result(PATIENCE) == 3
        assert pool.apply_async(functools.partial(add, 1), (2,)).result(PATIENCE) == 3
        assert pool.apply_async(threading.get_ident).result(PATIENCE) != threading.get_ident()


def test_what_waits_for_the_loop_does_not_run_yet() -> None:
    holds, gate = threading.Event(), threading.Event()
    with get_pool("asyncio", 2) as pool:
        first = pool.apply_async(hold_loop, (holds, gate))
        assert holds.wait(PATIENCE)
        second = pool.apply_async(add, (1,))
        gate.set()
        assert second.result(PATIENCE) == 1

        assert second.started_at <= first.ended_at <= second.code_began_at
        assert second.run_seconds == second.ended_at - second.code_began_at


def test_as_many_run_at_once_as_there_are_slots() -> None:
    gate = threading.Event()
    arrived: list[int] = []
    with get_pool("asyncio", 300) as pool:
        handles = [pool.apply_async(meet, (arrived, number, gate)) for number in range(400)]
        eventually(lambda: len(arrived) == 300)
        assert (pool.busy_slots, pool.free_slots) == (300, 0)
        assert arrived == list(range(300)), "they did not start in the order they came"
        gate.set()
        assert [handle.result(PATIENCE) for handle in handles] == list(range(400))
    assert {handle.slot for handle in handles} == set(range(300))


def test_sync_and_async_tasks_share_the_slots(tmp_path: Path) -> None:
    gate, path = threading.Event(), tmp_path / "gate"
    arrived: list[int] = []
    with get_pool("asyncio", 2) as pool:
        waiting = pool.apply_async(meet, (arrived, 1, gate))
        blocked = pool.apply_async(tasks.wait_for, (str(path), str(tmp_path / "started")))
        third = pool.apply_async(add, (1,))
        eventually(lambda: arrived and tasks.lines(tmp_path / "started"))
        assert pool.free_slots == 0
        assert not third.done
        path.touch()
        assert third.result(PATIENCE) == 1
        gate.set()
        assert (waiting.result(PATIENCE), blocked.result(PATIENCE)) == (1, os.getpid())
        assert pool.info["threads"] == 1


def test_each_task_has_context_variables_of_its_own() -> None:
    async def speak(word: str) -> tuple[str, str]:
        before = WORD.get()
        WORD.set(word)
        await asyncio.sleep(0.01)
        return before, WORD.get()

    def say(word: str) -> tuple[str, str]:
        before = WORD.get()
        WORD.set(word)
        return before, WORD.get()

    with get_pool("asyncio", 3, initializer=WORD.set, initargs=("start",)) as pool:
        handles = [pool.apply_async(speak, (str(number),)) for number in range(9)]
        handles += [pool.apply_async(say, (str(number),)) for number in range(9, 18)]

        assert [handle.result(PATIENCE) for handle in handles] == [("start", str(number)) for number in range(18)]


def test_the_initializer_runs_once() -> None:
    tasks.INITIALIZED.clear()
    with get_pool("asyncio", 5, initializer=tasks.initialize, initargs=("yes",)) as pool:
        for _ in range(5):
            pool.apply_async(add, (1,)).result(PATIENCE)
            pool.apply_async(tasks.add, (1,)).result(PATIENCE)
    assert tasks.INITIALIZED == ["yes"]


async def caught(seconds: float = 60) -> tuple[str, int]:
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimit as error:
        text = str(error)
        await asyncio.sleep(0.01)  # it may go on awaiting
        task = asyncio.current_task()
        assert task is not None
        return text, task.cancelling()
    return "never", -1


async def in_a_group() -> tuple[list[str], int] | None:
    """None where the limit came before both children waited."""
    begun: list[str] = []
    ended: list[str] = []

    async def child(name: str) -> None:
        begun.append(name)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(name)
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child("a"))
            group.create_task(child("b"))
    except SoftTimeLimit:
        task = asyncio.current_task()
        assert task is not None
        return (sorted(ended), task.cancelling()) if len(begun) == 2 else None
    return ended, -1


async def in_wait_for() -> str:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    try:
        await asyncio.wait_for(inner, 60)
    except SoftTimeLimit:
        return f"soft, inner cancelled: {inner.cancelled()}"
    return "never"


async def within_its_own_timeout(seconds: float) -> list[str]:
    """Its own timeout still works after, and together with, the limit."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            try:
                await asyncio.sleep(60)
            except SoftTimeLimit:
                seen.append("soft")
            await asyncio.sleep(60)
    except TimeoutError:
        seen.append("timeout")
    task = asyncio.current_task()
    assert task is not None
    return [*seen, str(task.cancelling())]


def test_the_soft_limit_is_raised_where_the_coroutine_awaits() -> None:
    told: list[Handle] = []
    limited: list[Handle] = []
    with get_pool("asyncio", 2, on_soft_timeout=told.append) as pool:

        def under_a_limit(target: Callable[..., object], *args: object, seconds: float = 0.05) -> Handle:
            limited.append(pool.apply_async(target, args, soft_timeout_seconds=seconds))
            return limited[-1]

        text = "the task reached its soft time limit of 0.05 s"
        assert under_a_limit(caught).result(PATIENCE) == (text, 0)
        in_the_group = struck_inside(lambda seconds: under_a_limit(in_a_group, seconds=seconds).result(PATIENCE))
        assert in_the_group == (["a", "b"], 0)
        assert under_a_limit(in_wait_for).result(PATIENCE) == "soft, inner cancelled: True"
        with pytest.raises(SoftTimeLimit):
            under_a_limit(asyncio.sleep, 60).result(PATIENCE)
    assert told == limited


def test_a_soft_limit_before_the_first_step_is_raised_at_the_first_await() -> None:
    gate = threading.Event()
    struck = threading.Event()

    async def holds_the_loop() -> None:
        gate.wait(PATIENCE)

    with get_pool("asyncio", 2, on_soft_timeout=lambda handle: struck.set()) as pool:
        holder = pool.apply_async(holds_the_loop)
        late = pool.apply_async(caught, soft_timeout_seconds=0.05)
        assert struck.wait(PATIENCE)
        gate.set()
        assert late.result(PATIENCE) == ("the task reached its soft time limit of 0.05 s", 0)
        holder.result(PATIENCE)


def test_a_timeout_of_the_task_itself_is_not_taken_for_the_limit() -> None:
    with get_pool("asyncio", 2) as pool:
        own = pool.apply_async(within_its_own_timeout, (0.05,), soft_timeout_seconds=60)
        assert own.result(PATIENCE) == ["timeout", "0"]

        def both(seconds: float) -> list[str] | None:
            handle = pool.apply_async(within_its_own_timeout, (20 * seconds,), soft_timeout_seconds=seconds)
            ended = list(handle.result(PATIENCE))
            return None if ended == ["timeout", "0"] else ended  # the limit came too late

        assert struck_inside(both) == ["soft", "timeout", "0"]


def test_a_timeout_at_the_moment_of_the_limit_is_not_lost() -> None:
    """Both ask for a cancellation while the task waits; one exception arrives, and the other follows."""
    with get_pool("asyncio", 20) as pool:
        handles = [
            pool.apply_async(within_its_own_timeout, (0.05,), soft_timeout_seconds=0.05 + 0.0002 * (number % 5))
            for number in range(60)
        ]
        ends = [handle.result(PATIENCE) for handle in handles]

    assert {tuple(end) for end in ends} <= {("soft", "timeout", "0"), ("timeout", "0")}


def test_a_task_that_cancels_itself_fails_alone() -> None:
    async def gives_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with get_pool("asyncio", 1) as pool:
        handle = pool.apply_async(gives_up, soft_timeout_seconds=60)
        with pytest.raises(asyncio.CancelledError):
            handle.result(PATIENCE)
        assert not isinstance(handle.error, SoftTimeLimit)
        assert pool.apply_async(add, (1, 1)).result(PATIENCE) == 2


@pytest.mark.usefixtures("unhurried_ends")
def test_the_hard_limit_and_an_end_pass_except_exception_and_run_cleanup() -> None:
    started: list[str] = []
    cleaned: list[str] = []

    async def stubborn() -> None:
        started.append("x")
        try:
            while True:
                try:
                    await asyncio.sleep(60)
                except Exception:
                    continue
        except Killed:
            await asyncio.sleep(0)
            cleaned.append("x")
            raise

    with get_pool("asyncio", 2) as pool:

        def hard_limit(seconds: float) -> Handle | None:
            before = len(started)
            handle = pool.apply_async(stubborn, timeout_seconds=seconds)
            with pytest.raises(HardTimeLimit, match=re.escape(f"{seconds} s")):
                handle.result(PATIENCE)
            return handle if len(started) > before else None

        hard = struck_inside(hard_limit)
        ended = pool.apply_async(stubborn)
        gate = threading.Event()
        arrived: list[int] = []
        neighbour = pool.apply_async(meet, (arrived, 1, gate))
        eventually(lambda: len(started) == 2 and arrived)
        assert pool.terminate_job(ended)
        with pytest.raises(Terminated):
            ended.result(PATIENCE)
        assert not neighbour.done
        gate.set()
        assert neighbour.result(PATIENCE) == 1
        assert not hard.abandoned
        assert not ended.abandoned
    assert cleaned == ["x"] * 2


def test_what_is_ended_before_its_first_step_never_runs() -> None:
    ran: list[str] = []

    async def runs() -> None:
        ran.append("x")

    gate = threading.Event()

    async def holds_the_loop() -> None:
        gate.wait(PATIENCE)

    with get_pool("asyncio", 2) as pool:
        holder = pool.apply_async(holds_the_loop)
        handle = pool.apply_async(runs)
        assert pool.terminate_job(handle)
        gate.set()
        with pytest.raises(Terminated):
            handle.result(PATIENCE)
        holder.result(PATIENCE)
    assert ran == []


def test_a_task_that_ignores_its_end_is_given_up() -> None:
    gate = threading.Event()

    async def ignores() -> None:
        begun.append("x")
        while not gate.is_set():
            try:
                await asyncio.sleep(0.01)
            except BaseException:
                continue

    begun: list[str] = []
    told: list[tuple[Handle, str]] = []
    pool = get_pool("asyncio", 2, on_hard_timeout=lambda handle: told.append((handle, threading.current_thread().name)))

    def hard_limit(seconds: float) -> Handle | None:
        told.clear()
        handle = pool.apply_async(ignores, timeout_seconds=seconds)
        with pytest.raises(HardTimeLimit):
            handle.result(PATIENCE)
        eventually(lambda: told)
        return handle if begun else None

    handle = struck_inside(hard_limit)
    assert handle.abandoned
    assert told == [(handle, "pool-asyncio-watchdog")]
    assert pool.busy_slots == 1
    assert pool.apply_async(add, (1,)).result(PATIENCE) == 1
    gate.set()
    eventually(lambda: pool.busy_slots == 0)
    pool.stop()


def test_a_task_that_blocks_the_loop_is_given_up_and_the_pool_ends_all_the_same(tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    told = threading.Event()
    pool = get_pool("asyncio", 3, on_hard_timeout=lambda handle: told.set())
    neighbour = pool.apply_async(asyncio.sleep, (60,))

    def hard_limit(seconds: float) -> Handle | None:
        handle = pool.apply_async(tasks.compute_until, (str(gate), str(begun)), timeout_seconds=seconds)
        with pytest.raises(HardTimeLimit):
            handle.result(PATIENCE)
        return handle if tasks.lines(begun) else None

    assert struck_inside(hard_limit).abandoned
    assert told.wait(PATIENCE)

    pool.terminate()

    with pytest.raises(Terminated):
        neighbour.result()
    gate.touch()


def caught_text(handle: Handle, seconds: float) -> str | None:
    """What ``caught`` says after its limit; None where the limit came before the code that catches it."""
    try:
        text, cancelling = handle.result(PATIENCE)
    except SoftTimeLimit:
        return None
    assert f"{seconds} s" in text
    assert cancelling == 0
    return str(text)


@pytest.mark.usefixtures("unhurried_ends")
def test_soft_limits_reach_sync_tasks_and_what_they_wait_for_on_the_loop() -> None:
    def sync() -> str:
        try:
            tasks.nap(60)
        except SoftTimeLimit:
            return "in its thread"
        return "never"

    def bridge() -> tuple[str, int]:
        return complete(caught())

    with get_pool("asyncio", 2) as pool:

        def in_its_thread(seconds: float) -> object:
            try:
                return pool.apply_async(sync, soft_timeout_seconds=seconds).result(PATIENCE)
            except SoftTimeLimit:  # before it came to its ``try``
                return None

        def on_the_loop(seconds: float) -> str | None:
            return caught_text(pool.apply_async(bridge, soft_timeout_seconds=seconds), seconds)

        assert struck_inside(in_its_thread) == "in its thread"
        assert struck_inside(on_the_loop)
        assert pool.apply_async(complete, (add(1, 1),)).result(PATIENCE) == 2
        ended = pool.apply_async(bridge)
        eventually(lambda: pool.busy_slots == 1)
        assert pool.terminate_job(ended)
        with pytest.raises(Terminated):
            ended.result(PATIENCE)
        assert not ended.abandoned
    assert complete(add(1, 1)) == 2


@pytest.mark.usefixtures("unhurried_ends")
def test_limits_reach_a_coroutine_that_a_threads_pool_completes() -> None:
    with get_pool("threads", 2) as pool:

        def soft_limit(seconds: float) -> str | None:
            return caught_text(pool.apply_async(lambda: complete(caught()), soft_timeout_seconds=seconds), seconds)

        assert struck_inside(soft_limit)
        hard = pool.apply_async(lambda: complete(asyncio.sleep(60)), timeout_seconds=0.05)
        with pytest.raises(HardTimeLimit):
            hard.result(PATIENCE)
        assert not hard.abandoned


def test_slots_come_and_go_while_coroutines_run() -> None:
    gate = threading.Event()
    arrived: list[int] = []
    with get_pool("asyncio", 2) as pool:
        handles = [pool.apply_async(meet, (arrived, number, gate)) for number in range(6)]
        eventually(lambda: len(arrived) == 2)
        pool.grow(3)
        eventually(lambda: len(arrived) == 5)
        pool.shrink(4)
        assert (pool.limit, pool.busy_slots, pool.free_slots) == (1, 5, 0)
        gate.set()
        assert [handle.result(PATIENCE) for handle in handles] == list(range(6))
        assert pool.free_slots == 1


def test_what_tasks_leave_behind_is_cancelled_at_the_end() -> None:
    ended: list[str] = []

    async def leaves_something() -> None:
        async def background() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("background")

        globals()["_kept"] = asyncio.ensure_future(background())
        await asyncio.sleep(0)

    pool = get_pool("asyncio", 1)
    pool.apply_async(leaves_something).result(PATIENCE)
    pool.stop()

    assert ended == ["background"]


def test_callbacks_come_in_the_thread_of_the_workers_loop(loop: EventLoop) -> None:
    seen: list[bool] = []
    pool = get_pool("asyncio", 10)
    pool.register_with_event_loop(loop)

    handles = [
        pool.apply_async(
            add, (number,), callback=lambda _: seen.append(threading.current_thread() is threading.main_thread())
        )
        for number in range(100)
    ]
    assert [handle.result(PATIENCE) for handle in handles] == list(range(100))
    pool.stop()

    assert seen == [True] * 100


def test_thousands_of_coroutines_at_their_limit_end_once_each() -> None:
    told: dict[int, int] = {}

    def note(handle: Handle) -> None:
        told[int(handle.id)] = told.get(int(handle.id), 0) + 1

    async def just_so_long() -> None:
        await asyncio.sleep(0.01)

    with get_pool("asyncio", 200) as pool:
        handles = [
            pool.apply_async(
                just_so_long, id=str(number), callback=note, soft_timeout_seconds=0.01, timeout_seconds=0.0102
            )
            for number in range(3000)
        ]
        for handle in handles:
            pool.wait(handle, PATIENCE)
        assert {type(handle.error) for handle in handles if not isinstance(handle.error, SoftTimeLimit)} <= {
            type(None),
            HardTimeLimit,
        }
        assert pool.busy_slots == 0
        assert pool.apply_async(add, (1,)).result(PATIENCE) == 1
    eventually(lambda: len(told) == 3000)
    assert set(told.values()) == {1}
