"""Stacks on request: threads, coroutines and greenlets with their names and the tasks they run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from fleet.worker import execution, stack_dump
from fleet.worker.stack_dump import Stack
from fleet.worker.task.call import Call, Outcome
from tests.conftest import eventually

CALL = Call("id-1", "shop.thumb", {}, b"")


class Waiting:
    """An app whose task waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def run(self, call: Call) -> Outcome:
        self.go.wait()
        return Outcome("success")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    made = Waiting()
    monkeypatch.setattr(execution, "_bound", made)
    yield made
    made.go.set()


def found(who: str) -> list[Stack]:
    return [stack for stack in stack_dump.current() if stack.who == who]


def test_a_thread_is_told_with_its_name_and_its_task(app: Waiting) -> None:
    thread = threading.Thread(target=execution.perform, args=(CALL,), name="pool-3")
    thread.start()
    [stack] = eventually(lambda: [one for one in found("thread pool-3") if one.task])
    app.go.set()
    thread.join()

    assert stack.task == "shop.thumb[id-1]"
    assert "in perform" in stack.text
    assert "self.go.wait()" in stack.text
    assert stack.text.index("in perform") < stack.text.index("self.go.wait()"), "not the innermost call last"


def test_a_coroutine_is_told_down_to_what_it_waits_for() -> None:
    async def inner() -> None:
        await asyncio.sleep(60)

    async def outer() -> None:
        await inner()

    async def main() -> list[Stack]:
        task = asyncio.create_task(outer(), name="shop-7")
        await asyncio.sleep(0)
        seen = found("asyncio task shop-7")
        task.cancel()
        return seen

    [stack] = asyncio.run(main())

    assert stack.task == ""
    assert stack.text.index("in outer") < stack.text.index("in inner") < stack.text.index("in sleep")


def test_a_task_is_found_behind_a_pool_that_steps_through_its_coroutine(
    app: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steps:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def run_async(call: Call) -> Outcome:
        await Steps()
        return Outcome("success")

    monkeypatch.setattr(app, "run_async", run_async, raising=False)
    coroutine = execution.perform_async(CALL)
    coroutine.send(None)
    [stack] = found("coroutine perform_async")
    coroutine.close()

    assert stack.task == "shop.thumb[id-1]"
    assert "await Steps()" in stack.text


def test_a_greenlet_is_told_with_its_task(app: Waiting) -> None:
    greenlet = pytest.importorskip("greenlet")
    here = greenlet.getcurrent()
    app.run = lambda call: here.switch()  # type: ignore[method-assign]
    one = greenlet.greenlet(execution.perform)
    one.switch(CALL)
    [stack] = found("greenlet greenlet")
    one.throw(greenlet.GreenletExit)

    assert stack.task == "shop.thumb[id-1]"
    assert "in perform" in stack.text


def test_objects_that_lie_about_their_class_do_no_harm() -> None:
    class Proxy:
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError("unbound")

    unbound = [Proxy()]

    assert any(stack.who == "thread MainThread" for stack in stack_dump.current())
    assert len(unbound) == 1


def test_idle_ones_at_the_same_place_are_told_once() -> None:
    idle, busy = Stack("thread pool-0", "", "a\n"), Stack("thread pool-9", "shop.thumb[1]", "a\n")
    told = stack_dump.merged([idle, idle._replace(who="thread pool-1"), busy, idle._replace(who="thread pool-2")])

    assert told == [idle._replace(who="thread pool-0 and 2 more at the same place"), busy]


def test_usr1_is_collected_and_a_forked_process_has_its_own_default_back() -> None:
    code = """
import os, signal
from fleet.worker.os_signals import SignalBox, STACKS, answer_bare
from fleet.worker import stack_dump as stacks
box = SignalBox()
box.install()
stacks.answer()
os.kill(os.getpid(), STACKS)
print("taken", box.take() == [STACKS])
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), STACKS)
print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -STACKS)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["taken True", "child True"]
    assert done.stderr.count("most recent call first") == 2, "USR1 in the parent, USR2 in the child"
