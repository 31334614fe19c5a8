"""One asyncio task per slot, on one event loop in a thread of its own. What is not ``async def`` goes to a thread.

Limits and ``terminate_job`` throw their exception into the coroutine where it awaits, as ``asyncio.timeout`` does: what
it awaits is cancelled first, and the exception is a ``CancelledError`` too, so that task groups and ``wait_for`` clean
up before it comes out of them. ``except SoftTimeLimit`` catches it. A coroutine that does not await is not reached,
and it stops all others; the hard limit then gives it up, see ``pools.inprocess``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import heapq
import inspect
import queue
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from pools.errors import Killed, SoftTimeLimit
from pools.handle import Handle
from pools.hooks import Target
from pools.inprocess import GRACE_SECONDS, THIS_THREAD, InProcessPool, Job, Run
from pools.raise_in_thread import Interruptible
from pools.traits import TRAITS

R = TypeVar("R")


def complete(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end for a task that cannot await it.

    In a thread of an asyncio pool it runs on the loop of the pool, anywhere else on a loop of its own. In an asyncio
    and in a threads pool, limits reach it where it awaits.
    """
    run: Run | None = getattr(THIS_THREAD, "run", None)
    if isinstance(run, _AsyncioRun):
        return run.complete(coroutine)
    return asyncio.run(coroutine) if run is None else _complete_in_thread(run, coroutine)


def _complete_in_thread(run: Run, coroutine: Coroutine[Any, Any, R]) -> R:
    async def run_coroutine() -> R:
        driven = _DrivenCoroutine(asyncio.get_running_loop())
        run.interrupt = driven.interrupt
        return await driven.drive(coroutine)

    into_thread = run.interrupt
    try:
        return asyncio.run(run_coroutine())
    finally:
        run.interrupt = into_thread


class AsyncioPool(InProcessPool):
    """Runs ``limit`` tasks at a time, coroutine functions on its loop and other functions in threads."""

    traits = TRAITS["asyncio"]

    def __init__(self, limit: int = 1, **options: Any) -> None:
        super().__init__(limit, **options)
        self.events: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._serve_coroutines, name="pool-asyncio", daemon=True)
        self._context = contextvars.Context()
        self._free = list(range(limit))
        self._numbered = limit
        self._new_runs: deque[tuple[_AsyncioRun, Job]] = deque()
        self._loop_woken = False
        self._calls: queue.SimpleQueue[tuple[_AsyncioRun, Job] | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._calls_open = 0

    @property
    def lost_threads(self) -> Sequence[str]:
        ended = [thread.name for thread in [self._thread, *self._threads] if thread.ident and not thread.is_alive()]
        return [*super().lost_threads, *ended]

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "threads": len(self._threads)}

    def on_start(self) -> None:
        if self.initializer is not None:
            self.initializer(*self.initargs)
        self._context = contextvars.copy_context()
        self.events = asyncio.new_event_loop()
        self._thread.start()

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting[handle] = (target, args, kwargs)
        self._fill_slots()

    def on_grow(self, count: int) -> None:
        with self._lock:
            self.limit += count
            for slot in range(self._numbered, self.limit):
                heapq.heappush(self._free, slot)
            self._numbered = max(self._numbered, self.limit)
        self._fill_slots()

    def on_shrink(self, count: int) -> None:
        with self._lock:
            self.limit -= count

    def on_stop(self) -> None:
        while pending := [*self._runs, *self._waiting]:
            for handle in pending:
                self.wait(handle)
        self._watchdog.close()
        self._leave()
        self._turn_loop()
        if self.finalizer is not None:
            self.finalizer()

    def on_terminate(self) -> None:
        super().on_terminate()
        self._leave()
        if self.finalizer is not None:
            self.finalizer()

    # -- slots

    def _fill_slots(self) -> None:
        while (taken := self._take()) is not None:
            slot, run, job = taken
            self._begin(slot, run)
            if inspect.iscoroutinefunction(job[0]):
                self._run_on_loop(run, job)
            else:
                self._run_in_thread(run, job)

    def _take(self) -> tuple[int, _AsyncioRun, Job] | None:
        """The next task and a slot for it, when there are both."""
        with self._lock:
            if not self._waiting or self._busy >= self.limit:
                return None
            handle, job = self._waiting.popitem(last=False)
            run = _AsyncioRun(handle, self.events)
            self._busy += 1
            self._runs[handle] = run
            return heapq.heappop(self._free), run, job

    def _end(self, run: Run, value: Any, failure: BaseException | None) -> None:
        slot = run.handle.slot
        self.tell_slot(slot, run.handle.pid, "idle")
        with self._lock:
            heapq.heappush(self._free, slot)
        super()._end(run, value, failure)
        self._fill_slots()

    def _leave(self) -> None:
        if self._thread.ident is None:  # never started
            return
        for _ in list(self._threads):
            self._calls.put(None)
        with suppress(RuntimeError):  # closed already
            self.events.call_soon_threadsafe(self.events.stop)
        self._thread.join(2 * GRACE_SECONDS)

    # -- coroutines, on the loop

    def _serve_coroutines(self) -> None:
        asyncio.set_event_loop(self.events)
        try:
            self.events.run_forever()
            self.events.run_until_complete(_cancel_left_tasks())
        finally:
            self.events.close()

    def _run_on_loop(self, run: _AsyncioRun, job: Job) -> None:
        self._new_runs.append((run, job))
        if threading.current_thread() is self._thread:
            self._start_new_runs()
        elif not self._loop_woken:  # waking the loop costs more than starting a task, so once for many
            self._loop_woken = True
            self.events.call_soon_threadsafe(self._start_new_runs)

    def _start_new_runs(self) -> None:
        self._loop_woken = False  # first: what is handed over from now on wakes it again
        while self._new_runs:
            run, job = self._new_runs.popleft()
            run.task = self.events.create_task(self._await_task(run, *job), context=self._context.copy())

    async def _await_task(
        self, run: _AsyncioRun, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        value, failure = None, None
        run.handle.code_began_at = time.monotonic()  # others had the loop before
        try:
            value = await run.enter(_DrivenCoroutine(self.events)).drive(target(*args, **kwargs))
        except BaseException as error:
            failure = error
        self._end(run, value, failure)

    # -- everything else, in threads

    def _run_in_thread(self, run: _AsyncioRun, job: Job) -> None:
        with self._lock:
            self._calls_open += 1
            short = self._calls_open > len(self._threads)
            if short:
                name = f"pool-asyncio-{len(self._threads)}"
                thread = threading.Thread(target=self._serve_calls, name=name, daemon=True)
                self._threads.add(thread)
        self._calls.put((run, job))
        if short:
            thread.start()

    def _serve_calls(self) -> None:
        thread = Interruptible()
        while (call := self._calls.get()) is not None:
            run, job = call
            del call
            value, failure = self._call(thread, run, *job)
            with self._lock:
                self._calls_open -= 1
            self._end(run, value, failure)
            del run, job, value, failure
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _call(
        self,
        thread: Interruptible,
        run: _AsyncioRun,
        target: Target,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> tuple[Any, BaseException | None]:
        THIS_THREAD.run = run
        thread.expect(run.handle)
        try:
            if (pending := run.enter_thread(thread)) is not None:
                return None, pending
            return thread.call(run.handle, self._context.copy().run, (target, *args), kwargs)
        finally:
            THIS_THREAD.run = None


class _AsyncioRun(Run):
    """A task in its slot. Its code is on the loop or in a thread, and an interruption is raised where it is now."""

    __slots__ = ("_driven", "_events", "_lock", "_pending", "_thread", "task")

    def __init__(self, handle: Handle, events: asyncio.AbstractEventLoop) -> None:
        super().__init__(handle, self._interrupt)
        self.task: asyncio.Task[None] | None = None
        self._events = events
        self._lock = threading.Lock()
        self._driven: _DrivenCoroutine | None = None
        self._thread: Interruptible | None = None
        self._pending: SoftTimeLimit | Killed | None = None

    def enter(self, driven: _DrivenCoroutine) -> _DrivenCoroutine:
        """Its code is this coroutine from now on. Raises there what came too early."""
        with self._lock:
            self._driven = driven
            if self._pending is not None:
                driven.interrupt(self._pending)
        return driven

    def enter_thread(self, thread: Interruptible) -> BaseException | None:
        """Its code is called in this thread from now on. Returns the error that came too early, None without one."""
        with self._lock:
            self._thread = thread
            return self._pending

    def complete(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """From its thread: run a coroutine on the loop, and wait for it."""
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        driven = _DrivenCoroutine(self._events)
        context = contextvars.copy_context()
        self.enter(driven)
        try:
            self._events.call_soon_threadsafe(partial(driven.report, coroutine, future), context=context)
            return future.result()
        finally:
            with self._lock:
                self._driven = None

    def _interrupt(self, error: SoftTimeLimit | Killed) -> None:
        with self._lock:
            if self._driven is not None:
                self._driven.interrupt(error)
            elif self._thread is not None:
                self._thread.interrupt(self.handle, error)
            else:
                self._pending = error


class _DrivenCoroutine:
    """A coroutine on the loop, driven step by step, so that an exception of ours can take the place of a cancellation.

    _cancels: how often others had asked to cancel it when it last began to await.  _owes_cancel: somebody else asked
    to cancel it together with us; that cancellation follows at the next await.
    """

    def __init__(self, events: asyncio.AbstractEventLoop) -> None:
        self._events = events
        self._task: asyncio.Task[Any] | None = None
        self._awaits = False
        self._cancelled_here = False
        self._owes_cancel = False
        self._cancels = 0
        self._pending: SoftTimeLimit | Killed | None = None

    def interrupt(self, error: SoftTimeLimit | Killed) -> None:
        """From any thread: raise it in the coroutine where it awaits, or will await next."""
        self._pending = error
        with suppress(RuntimeError):  # the loop is closed, and the coroutine with it
            self._events.call_soon_threadsafe(self._cancel_to_raise)

    def report(self, coroutine: Coroutine[Any, Any, R], future: concurrent.futures.Future[R]) -> None:
        """On the loop: run the coroutine as a task of its own, and tell the future."""
        self._task = self._events.create_task(self._report(coroutine, future))

    async def _report(self, coroutine: Coroutine[Any, Any, R], future: concurrent.futures.Future[R]) -> None:
        try:
            future.set_result(await self.drive(coroutine))
        except BaseException as error:
            future.set_exception(error)

    @types.coroutine
    def drive(self, coroutine: Coroutine[Any, Any, R]) -> Generator[Any, Any, R]:
        """Run it to its end."""
        task = self._task = asyncio.current_task()
        assert task is not None
        step: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        if isinstance(self._pending, Killed):
            step, argument = coroutine.throw, self._take_pending()
        elif self._pending is not None:
            # a soft limit before its first step: raised where it awaits, so it may clean up
            self._events.call_soon(self._cancel_to_raise)
        while True:
            try:
                awaited = step(argument)
            except StopIteration as end:
                result: R = end.value
                return result
            if self._owes_cancel:
                self._owes_cancel = False
                task.uncancel()
                task.cancel()
            try:
                self._cancels, self._awaits = task.cancelling(), True
                argument = yield awaited
                step = coroutine.send
            except BaseException as error:
                step, argument = coroutine.throw, error
            finally:
                self._awaits = False
            if self._cancelled_here:
                self._cancelled_here = False
                self._owes_cancel = task.uncancel() > self._cancels
                step, argument = coroutine.throw, self._take_pending()

    def _cancel_to_raise(self) -> None:
        if self._awaits and not self._cancelled_here and self._pending is not None and self._task is not None:
            self._cancelled_here = True
            self._task.cancel()

    def _take_pending(self) -> BaseException:
        error, self._pending = self._pending, None
        return _SoftTimeLimit(str(error)) if isinstance(error, SoftTimeLimit) else _Killed(str(error))


class _SoftTimeLimit(SoftTimeLimit, asyncio.CancelledError):
    """The soft limit at an await: what waits there may clean up as for any cancellation."""


class _Killed(Killed, asyncio.CancelledError):
    """The end at an await."""


async def _cancel_left_tasks() -> None:
    """Cancel what tasks have started and not waited for, and give it ``GRACE_SECONDS`` to end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=GRACE_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()
