"""What gevent and eventlet pools share: one greenlet per task, all in one thread, and how a task is ended.

A task runs until it waits for something; then the others run. Limits and ``terminate_job`` are therefore enforced in
three steps:

1. The hub throws ``SoftTimeLimit`` or ``Killed`` into exactly that greenlet where it waits, and again each second if
   the task swallows it.
2. A task that computes and never waits keeps the hub from doing so. A native thread (:mod:`pools.block_detector`)
   notices it within half a second and signals the main thread; the handler raises only if the greenlet that runs right
   then is the one over its limit. System calls that Python made itself are interrupted as well (``os.read``, an
   unpatched ``sleep``).
3. A task that is still there ``patience_seconds`` later is given up: its handle fails, is marked ``abandoned``, and its
   slot stays taken. When it also blocks the whole process (C code that never looks at signals), only the end of the
   process helps, and ``on_blocked(handle)`` is called in the native thread: nothing of the patched library may be used
   there, no socket, no lock, no logging. C code that keeps the interpreter lock stops that thread too; only a
   health check from outside sees it.

A killed task is reported once, as what ended it, and not as what its code made of that.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, ClassVar

from greenlet import GreenletExit, getcurrent

from pools import logging_locks
from pools.base import BasePool, Target
from pools.block_detector import BlockDetector
from pools.errors import HardTimeLimit, PoolError, SoftTimeLimit, Terminated
from pools.handle import DoneCallback, Handle
from pools.patching import require_patched

Cancel = Callable[[], object]

AGAIN_SECONDS = 1.0
LAG_SECONDS = 0.2
"""How long the hub may be late before the native thread takes part."""
FIRST_PID = 1 << 30
"""Slots have numbers in the place of pids, far above every real one, so that a signal sent there hits nobody."""

_TERMINATE_SECONDS = 1.0


class Killed(GreenletExit, SystemExit):  # type: ignore[misc]
    """Thrown into a task to end it. No ``Exception``, so that ``except Exception`` lets it pass."""


class _Run:
    """One task in its slot.

    inside: the task's own code runs, so that something may be raised into it.  end_reason: why it is being ended.
    seen_at: when the hub last dealt with its end.
    """

    __slots__ = (
        "args",
        "cancels",
        "end_reason",
        "greenlet",
        "handle",
        "hard_at",
        "inside",
        "killed_at",
        "kwargs",
        "pid",
        "seen_at",
        "slot",
        "soft_at",
        "softened",
        "target",
        "watched",
    )

    def __init__(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.handle = handle
        self.target = target
        self.args = args
        self.kwargs = kwargs
        self.slot = -1
        self.pid = 0
        self.greenlet: Any = None
        self.inside = self.softened = self.watched = False
        self.soft_at = self.hard_at = self.killed_at = self.seen_at = 0.0
        self.end_reason: PoolError | None = None
        self.cancels: list[Cancel] = []


class GreenPool(BasePool):
    """The base of both. What the libraries do in their own ways stands at its end.

    on_blocked(handle): see above; called in a native thread, at most once.
    """

    patience_seconds: ClassVar[float] = 5.0

    def __init__(self, limit: int = 1, *, on_blocked: DoneCallback | None = None, **options: Any) -> None:
        require_patched(self.traits.name)
        super().__init__(limit, **options)
        self._on_blocked = on_blocked
        self._waiting: dict[Handle, _Run] = {}
        self._runs: dict[Handle, _Run] = {}
        self._by_greenlet: dict[Any, _Run] = {}
        self._free = list(range(limit))
        self._started = itertools.count()
        self._detector: BlockDetector | None = None

    # -- what it is

    @property
    def busy_slots(self) -> int:
        return len(self._runs)

    @property
    def free_slots(self) -> int:
        return max(0, self.limit - len(self._runs) - len(self._waiting))

    # -- life

    def on_stop(self) -> None:
        for handle in [*self._runs, *self._waiting]:
            self.wait(handle)
        self._leave()

    def on_terminate(self) -> None:
        self.flush()
        for run in list(self._runs.values()):
            self._end_soon(run, Terminated("the pool was terminated"))
        end = time.monotonic() + _TERMINATE_SECONDS
        while any(not handle.done for handle in self._runs) and time.monotonic() < end:
            self._let_run(0.05)
        for run in list(self._runs.values()):
            self._abandon(run, Terminated("the pool was terminated, and the task goes on"))
        self._leave()

    def _leave(self) -> None:
        self._let_run(0)
        if self._detector is not None:
            self._detector.close()
        if self.finalizer is not None:
            self.finalizer()

    def _let_run(self, seconds: float) -> None:
        """Let the tasks run for a moment. What they wait for may be done by the loop of this thread."""
        loop = self.loop
        if loop is not None and loop.in_thread and not loop.closed:
            loop.run_once(seconds)
        self._join(seconds)

    # -- work

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        run = _Run(handle, target, args, kwargs)
        if self._waiting or len(self._runs) >= self.limit:
            self._waiting[handle] = run
        else:
            self._start(run)

    def on_cancel(self, handle: Handle) -> bool:
        if self._waiting.pop(handle, None) is None and (handle not in self._runs or handle.started_at):
            return False
        handle.withdraw(time.monotonic())  # where its greenlet is on the way already, it finds it done
        return True

    def flush(self) -> list[Handle]:
        return [handle for handle in [*self._runs, *self._waiting] if handle.cancel()]

    def on_grow(self, count: int) -> None:
        taken = {run.slot for run in self._runs.values()}
        for slot in range(self.limit, self.limit + count):
            if slot not in taken:
                heapq.heappush(self._free, slot)
        self.limit += count
        self._start_waiting()

    def on_shrink(self, count: int) -> None:
        self.limit -= count
        self._free = [slot for slot in self._free if slot < self.limit]
        heapq.heapify(self._free)

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:  # noqa: ARG002
        for run in self._runs.values():
            if (run.handle is which or run.pid == which) and run.end_reason is None and not run.handle.done:
                self._end_soon(run, Terminated("the task was ended on request"))
                return True
        return False

    # -- slots

    def _start_waiting(self) -> None:
        while self._waiting and len(self._runs) < self.limit:
            handle = next(iter(self._waiting))
            self._start(self._waiting.pop(handle))

    def _start(self, run: _Run) -> None:
        run.slot = heapq.heappop(self._free)
        self._runs[run.handle] = run
        self._spawn(self._serve, run)

    def _serve(self, run: _Run) -> None:
        """The life of one task in its greenlet."""
        value, failure = None, None
        try:
            if not run.handle.done:
                self._begin(run)
                value = self._perform(run)
        except BaseException as error:
            failure = error
        run.inside = False
        self._finish(run, value, failure)

    def _begin(self, run: _Run) -> None:
        handle, now = run.handle, time.monotonic()
        run.greenlet = getcurrent()
        run.pid = FIRST_PID + next(self._started) % FIRST_PID
        self._by_greenlet[run.greenlet] = run
        handle.begin(run.slot, run.pid, now)
        if handle.accept_callback is not None:
            self.accepted(handle, now)
        self.tell_slot(run.slot, run.pid, "busy")
        if handle.soft_timeout_seconds is not None or handle.timeout_seconds is not None:
            self._arm(run, now)

    def _perform(self, run: _Run) -> Any:
        run.inside = True
        try:
            return run.target(*run.args, **run.kwargs)
        finally:
            run.inside = False

    def _finish(self, run: _Run, value: Any, failure: BaseException | None) -> None:
        self._disarm(run)
        self._by_greenlet.pop(run.greenlet, None)
        self._runs.pop(run.handle, None)
        if run.slot < self.limit:
            heapq.heappush(self._free, run.slot)
        self._complete(run, value, failure)
        if run.pid:
            self.tell_slot(run.slot, run.pid, "idle")
        self._start_waiting()

    def _complete(self, run: _Run, value: Any, failure: BaseException | None) -> None:
        handle, now = run.handle, time.monotonic()
        if run.softened or run.end_reason is not None:
            logging_locks.release_own()
        if handle.done:
            if handle.abandoned:
                self.log.warning("%r returned after it was given up; its result is dropped", handle)
        elif run.end_reason is not None:
            handle.fail(run.end_reason, now)
        elif failure is not None:
            handle.fail(failure, now)
        else:
            handle.succeed(value, now)

    # -- limits and ends: by the hub

    def _arm(self, run: _Run, now: float) -> None:
        soft, hard = run.handle.soft_timeout_seconds, run.handle.timeout_seconds
        if hard is not None:
            run.hard_at = now + hard
            over = HardTimeLimit(f"the task ran into its hard time limit of {hard} s")
            run.cancels.append(self._in_hub_after(hard, partial(self._kill, run, over)))
        if soft is not None and (hard is None or soft < hard):  # else it would come too late
            run.soft_at = now + soft
            run.cancels.append(self._in_hub_after(soft, partial(self._soften, run)))
        self._watch(run)

    def _watch(self, run: _Run) -> None:
        run.watched = True
        if self._detector is None:
            self._detector = BlockDetector(self._thread(), self._check, self._on_signal)
        self._detector.watch()

    def _disarm(self, run: _Run) -> None:
        for cancel in run.cancels:
            cancel()
        run.cancels.clear()
        if run.watched and self._detector is not None:
            self._detector.forget()

    def _soften(self, run: _Run) -> None:
        if run.inside and not run.softened:
            run.greenlet.throw(self._softened(run))

    def _softened(self, run: _Run) -> SoftTimeLimit:
        run.softened = True
        self.on_soft_timeout(run.handle)
        return SoftTimeLimit(f"the task reached its soft time limit of {run.handle.soft_timeout_seconds} s")

    def _end_soon(self, run: _Run, end_reason: PoolError) -> None:
        run.cancels.append(self._in_hub_after(0, partial(self._kill, run, end_reason)))

    def _kill(self, run: _Run, end_reason: PoolError) -> None:
        """In the hub: throw, and look again in a second."""
        if not run.inside:
            return
        self._request_end(run, end_reason)
        now = run.seen_at = time.monotonic()
        if now - run.killed_at >= self.patience_seconds:
            self._abandon(run, end_reason)
        run.cancels.append(self._in_hub_after(AGAIN_SECONDS, partial(self._kill, run, end_reason)))
        run.greenlet.throw(Killed(str(run.end_reason)))

    def _request_end(self, run: _Run, end_reason: PoolError) -> None:
        if run.end_reason is not None:
            return
        run.end_reason = end_reason
        run.killed_at = time.monotonic()
        if not run.watched:
            self._watch(run)
        if isinstance(end_reason, HardTimeLimit):
            self.on_hard_timeout(run.handle)

    def _abandon(self, run: _Run, end_reason: PoolError) -> None:
        handle = run.handle
        if not handle.done:
            self.log.error("%r does not end; it is given up, and its slot stays taken", handle)
            handle.abandoned = True
            handle.fail(run.end_reason or end_reason, time.monotonic())

    # -- limits and ends: when the hub does not get to it

    def _check(self) -> None:
        """In the native thread."""
        now = time.monotonic()
        for run in list(self._runs.values()):
            if self._is_late(run, now) and self._blocks(run):
                self._interrupt(run, now)

    def _interrupt(self, run: _Run, now: float) -> None:
        if self._detector is not None:
            self._detector.signal_main_thread()
        if self._on_blocked is not None and self._is_lost(run, now):
            callback, self._on_blocked = self._on_blocked, None
            run.handle.abandoned = True
            callback(run.handle)

    def _is_late(self, run: _Run, now: float) -> bool:
        if not run.inside:
            return False
        if run.end_reason is not None:
            return now - max(run.killed_at, run.seen_at) > AGAIN_SECONDS + LAG_SECONDS
        if run.hard_at and now - run.hard_at > LAG_SECONDS:
            return True
        return bool(run.soft_at and not run.softened and now - run.soft_at > LAG_SECONDS)

    def _is_lost(self, run: _Run, now: float) -> bool:
        """Whether neither the hub nor a signal has got through for so long that waiting makes no sense."""
        since = max(run.seen_at, run.hard_at or run.killed_at)
        return bool(since) and now - since > self.patience_seconds + LAG_SECONDS

    def _blocks(self, run: _Run) -> bool:
        """Whether the main thread is inside this very task. Another one that blocks is neither disturbed nor blamed."""
        frame: FrameType | None = sys._current_frames().get(self._detector.main_thread if self._detector else 0)
        while frame is not None:
            if frame.f_code is GreenPool._perform.__code__:
                return frame.f_locals.get("run") is run
            frame = frame.f_back
        return False

    def _on_signal(self) -> None:
        """In the main thread, in whatever greenlet runs."""
        run = self._by_greenlet.get(getcurrent())
        if run is None or not run.inside:
            return
        now, hard = time.monotonic(), run.handle.timeout_seconds
        if run.end_reason is None and run.hard_at and now >= run.hard_at:
            self._request_end(run, HardTimeLimit(f"the task ran into its hard time limit of {hard} s"))
        if run.end_reason is not None:
            raise Killed(str(run.end_reason))
        if run.soft_at and now >= run.soft_at and not run.softened:
            raise self._softened(run)

    # -- callbacks

    def _in_loop_thread(self, call: Callable[[], object], handle: Handle) -> None:
        if self._is_hub() and (self.loop is None or self.loop.closed):
            self._spawn(self._call_back, call, handle)  # a callback may wait, the hub may not
        else:
            super()._in_loop_thread(call, handle)

    # -- the library

    def _spawn(self, function: Callable[..., object], *args: Any) -> None:
        """Run it in a greenlet of its own, soon."""
        raise NotImplementedError

    def _in_hub_after(self, seconds: float, function: Callable[[], object]) -> Cancel:
        """Call it in the hub; what calls it off."""
        raise NotImplementedError

    def _is_hub(self) -> bool:
        """Whether the caller is the hub, which must never wait."""
        raise NotImplementedError

    def _join(self, timeout_seconds: float) -> None:
        """Let greenlets run until all tasks are over, at most this long; 0: one round."""
        raise NotImplementedError

    def _thread(self) -> Any:
        """The ``_thread`` module as it was: ``start_new_thread``, ``allocate_lock``, ``get_ident``."""
        raise NotImplementedError
