"""One asyncio task per slot, on one event loop in a thread of its own. What is not ``async def`` goes to a thread.

Limits and ``terminate_job`` throw their exception into the coroutine where it awaits, as ``asyncio.timeout`` does: what
it awaits is cancelled first, and the exception is a ``CancelledError`` too, so that task groups and ``wait_for`` clean
up before it comes out of them. ``except SoftTimeLimit`` catches it. A coroutine that does not await is not reached,
and stops all others with it; the hard limit then gives it up, see ``pools.inprocess``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import heapq
import inspect
import queue
import threading
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from pools.base import Target
from pools.errors import Killed, SoftTimeLimit
from pools.handle import Handle
from pools.inprocess import GRACE_SECONDS, HERE, InProcessPool, Job, Run
from pools.interruption import Interruptible
from pools.traits import TRAITS

R = TypeVar("R")


def complete(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end for a task that cannot await it.

    In a thread of an asyncio pool it runs on the loop of the pool, anywhere else on a loop of its own. In an asyncio
    and in a threads pool, limits reach it where it awaits.
    """
    run: Run | None = getattr(HERE, "run", None)
    if isinstance(run, _AsyncioRun):
        return run.complete(coroutine)
    return asyncio.run(coroutine) if run is None else _complete_in_thread(run, coroutine)


def _complete_in_thread(run: Run, coroutine: Coroutine[Any, Any, R]) -> R:
    async def attend() -> R:
        guest = _Guest(asyncio.get_running_loop())
        run.interrupt = guest.interrupt
        return await guest.attend(coroutine)

    into_thread = run.interrupt
    try:
        return asyncio.run(attend())
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
        self._handed: deque[tuple[_AsyncioRun, Job]] = deque()
        self._loop_knows = False
        self._calls: queue.SimpleQueue[tuple[_AsyncioRun, Job] | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._calls_open = 0

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
                self._hand_to_loop(run, job)
            else:
                self._call_in_thread(run, job)

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
            self.events.run_until_complete(_end_leftovers())
        finally:
            self.events.close()

    def _hand_to_loop(self, run: _AsyncioRun, job: Job) -> None:
        self._handed.append((run, job))
        if threading.current_thread() is self._thread:
            self._spawn_handed()
        elif not self._loop_knows:  # waking the loop costs more than starting a task, so once for many
            self._loop_knows = True
            self.events.call_soon_threadsafe(self._spawn_handed)

    def _spawn_handed(self) -> None:
        self._loop_knows = False  # first: what is handed over from now on wakes it again
        while self._handed:
            run, job = self._handed.popleft()
            run.task = self.events.create_task(self._attend(run, *job), context=self._context.copy())

    async def _attend(self, run: _AsyncioRun, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        value, failure = None, None
        try:
            value = await run.enter(_Guest(self.events)).attend(target(*args, **kwargs))
        except BaseException as error:
            failure = error
        self._end(run, value, failure)

    # -- everything else, in threads

    def _call_in_thread(self, run: _AsyncioRun, job: Job) -> None:
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
        HERE.run = run
        thread.expect(run.handle)
        try:
            if (missed := run.enter_thread(thread)) is not None:
                return None, missed
            return thread.call(run.handle, self._context.copy().run, (target, *args), kwargs)
        finally:
            HERE.run = None


class _AsyncioRun(Run):
    """A task in its slot, which is reached on the loop or in a thread, wherever its code is now."""

    __slots__ = ("_events", "_guest", "_missed", "_place", "_thread", "task")

    def __init__(self, handle: Handle, events: asyncio.AbstractEventLoop) -> None:
        super().__init__(handle, self._interrupt)
        self.task: asyncio.Task[None] | None = None
        self._events = events
        self._place = threading.Lock()
        self._guest: _Guest | None = None
        self._thread: Interruptible | None = None
        self._missed: SoftTimeLimit | Killed | None = None

    def enter(self, guest: _Guest) -> _Guest:
        """Its code is a coroutine from now on."""
        with self._place:
            self._guest = guest
            if self._missed is not None:
                guest.interrupt(self._missed)
        return guest

    def enter_thread(self, thread: Interruptible) -> BaseException | None:
        """Its code is called in this thread; what should have been raised before that."""
        with self._place:
            self._thread = thread
            return self._missed

    def complete(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """From its thread: run a coroutine on the loop, and wait for it."""
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        guest = _Guest(self._events)
        context = contextvars.copy_context()
        self.enter(guest)
        try:
            self._events.call_soon_threadsafe(partial(guest.report, coroutine, future), context=context)
            return future.result()
        finally:
            with self._place:
                self._guest = None

    def _interrupt(self, error: SoftTimeLimit | Killed) -> None:
        with self._place:
            if self._guest is not None:
                self._guest.interrupt(error)
            elif self._thread is not None:
                self._thread.interrupt(self.handle, error)
            else:
                self._missed = error


class _Guest:
    """A coroutine on the loop, driven step by step, so that an exception of ours can take the place of a cancellation.

    cancels: cancellations that others had asked for when it last began to await.  owed: one that came together with
    ours; it follows at the next await.
    """

    def __init__(self, events: asyncio.AbstractEventLoop) -> None:
        self._events = events
        self._task: asyncio.Task[Any] | None = None
        self._awaits = False
        self._knocked = False
        self._owed = False
        self._cancels = 0
        self._news: SoftTimeLimit | Killed | None = None

    def interrupt(self, error: SoftTimeLimit | Killed) -> None:
        """From any thread: raise it in the coroutine where it awaits, or will await next."""
        self._news = error
        with suppress(RuntimeError):  # the loop is closed, and the coroutine with it
            self._events.call_soon_threadsafe(self._knock)

    def report(self, coroutine: Coroutine[Any, Any, R], future: concurrent.futures.Future[R]) -> None:
        """On the loop: run the coroutine as a task of its own, and tell the future."""
        self._task = self._events.create_task(self._report(coroutine, future))

    async def _report(self, coroutine: Coroutine[Any, Any, R], future: concurrent.futures.Future[R]) -> None:
        try:
            future.set_result(await self.attend(coroutine))
        except BaseException as error:
            future.set_exception(error)

    @types.coroutine
    def attend(self, coroutine: Coroutine[Any, Any, R]) -> Generator[Any, Any, R]:
        """Run it to its end."""
        task = self._task = asyncio.current_task()
        assert task is not None
        step: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        if isinstance(self._news, Killed):
            step, argument = coroutine.throw, self._take_news()
        elif self._news is not None:  # a soft limit before its first step: raised where it awaits, so it may clean up
            self._events.call_soon(self._knock)
        while True:
            try:
                awaited = step(argument)
            except StopIteration as end:
                result: R = end.value
                return result
            if self._owed:
                self._owed = False
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
            if self._knocked:
                self._knocked = False
                self._owed = task.uncancel() > self._cancels
                step, argument = coroutine.throw, self._take_news()

    def _knock(self) -> None:
        if self._awaits and not self._knocked and self._news is not None and self._task is not None:
            self._knocked = True
            self._task.cancel()

    def _take_news(self) -> BaseException:
        news, self._news = self._news, None
        return _SoftTimeLimit(str(news)) if isinstance(news, SoftTimeLimit) else _Killed(str(news))


class _SoftTimeLimit(SoftTimeLimit, asyncio.CancelledError):
    """The soft limit at an await: what waits there may clean up as for any cancellation."""


class _Killed(Killed, asyncio.CancelledError):
    """The end at an await."""


async def _end_leftovers() -> None:
    """What tasks have started and not waited for."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=GRACE_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()
