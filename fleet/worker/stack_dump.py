"""On USR1, writes the stacks of every thread, greenlet, coroutine and child to the log.

Twice, because the two ways fail differently. First the interpreter's C handler writes the bare stacks of all threads,
at once, whatever the process is doing: also in C code that never releases the interpreter. Then the loop, or for a
busy solo worker the housekeeping thread, writes them again with names and tasks, and with what C cannot see.
Children get USR2, which is the bare kind alone; so does a worker that is sent USR2 itself.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import CoroutineType, FrameType
from typing import Any, NamedTuple

from fleet.worker import execution
from fleet.worker.os_signals import BARE_STACKS, STACKS, answer_bare
from fleet.worker.task.call import Call
from fleet.worker.task.job import Job
from pools.base import BasePool

log = logging.getLogger("fleet.stacks")

BETWEEN_CHILDREN_SECONDS = 0.05
"""Children write into one log: one after the other, so that their stacks do not mix."""


class Stack(NamedTuple):
    """One line of execution. ``task`` is empty where it runs none."""

    who: str
    task: str
    text: str


def answer() -> None:
    """Make this process answer USR1 and USR2. Call it after ``SignalBox.install``, whose handler is called as well."""
    faulthandler.register(STACKS, all_threads=True, chain=True)
    answer_bare()


def write(pool: BasePool, running: Iterable[Job]) -> None:
    """Everything of this process, then one child after the other. The caller holds the channel's lock.

    running: a live view, since children are asked later.
    """
    for stack in merged(current()):
        what = f" runs {stack.task}" if stack.task else ""
        log.warning("%s%s:\n%s", stack.who, what, stack.text.rstrip(), extra={"has_lines": True})
    _ask_children(pool, running)


def current() -> Iterator[Stack]:
    """Threads, then greenlets and coroutines that wait. The one that runs in a thread is seen as the thread's stack."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, top in sys._current_frames().items():
        # gevent and eventlet give threads different numbers; the one that asks is known in any case.
        name = threading.current_thread().name if top is sys._getframe() else names.get(ident, f"{ident:#x}")
        yield _stack(f"thread {name}", _frames_below(top))
    greenlet: Any = getattr(sys.modules.get("greenlet"), "greenlet", ())
    asyncio_task: Any = getattr(sys.modules.get("asyncio"), "Task", ())
    for thing in gc.get_objects():
        kind = type(thing)  # not isinstance, which asks the object itself: proxies may raise
        if kind is CoroutineType:
            if thing.cr_code.co_filename == execution.__file__:  # the pool steps through it, no Task knows it
                yield _stack(f"coroutine {thing.__qualname__}", list(_frames_of(thing)))
        elif issubclass(kind, asyncio_task):
            if not thing.done():
                yield _stack(f"asyncio task {thing.get_name()}", list(_frames_of(thing.get_coro())))
        elif issubclass(kind, greenlet) and (frame := thing.gr_frame) is not None:
            yield _stack(f"greenlet {kind.__name__} {getattr(thing, 'name', '')}".rstrip(), _frames_below(frame))


def merged(stacks: Iterable[Stack]) -> list[Stack]:
    """Idle ones that wait at the same place become one entry: a pool may hold a thousand of them."""
    found: dict[tuple[str, str], list[Stack]] = {}
    for stack in stacks:
        found.setdefault((stack.task or "", stack.text), []).append(stack)
    return [
        same[0]._replace(who=f"{same[0].who} and {len(same) - 1} more at the same place") if len(same) > 1 else same[0]
        for same in found.values()
    ]


def _stack(who: str, frames: list[FrameType]) -> Stack:
    """From the outermost to the innermost frame."""
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return Stack(who, _task_in(frames), "".join(summary.format()))


def _frames_below(top: FrameType) -> list[FrameType]:
    return [frame for frame, _ in traceback.walk_stack(top)][::-1]


def _frames_of(coroutine: Any) -> Iterator[FrameType]:
    """A coroutine and what it waits for."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)


def _task_in(frames: list[FrameType]) -> str:
    """Whatever the pool, a task runs below a function of ``execution`` that has its call."""
    for frame in frames:
        if frame.f_code.co_filename == execution.__file__ and isinstance(call := frame.f_locals.get("call"), Call):
            return f"{call.name}[{call.id}]"
    return ""


# --- children


def _ask_children(pool: BasePool, running: Iterable[Job]) -> None:
    if pool.loop is None:
        return
    for number, slot in enumerate(pool.info.get("slots", ())):
        if slot["state"] == "starting" and pool.start_method != "fork":
            continue  # it does not answer yet, and would die
        pool.loop.call_later(number * BETWEEN_CHILDREN_SECONDS, partial(_ask_child, pool, running, slot["pid"]))


def _ask_child(pool: BasePool, running: Iterable[Job], pid: int) -> None:
    if not any(slot["pid"] == pid for slot in pool.info.get("slots", ())):
        return  # it has ended in between
    calls = [job.call for job in running if job.handle is not None and job.handle.pid == pid]
    what = f"runs {calls[0].name}[{calls[0].id}]" if calls else "runs no task"
    log.warning("child %d %s; its stack:", pid, what)
    with suppress(ProcessLookupError):
        os.kill(pid, BARE_STACKS)
