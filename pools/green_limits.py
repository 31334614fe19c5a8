"""The limits of a task in a greenlet, and its end: thrown by the hub, or raised by a signal where the hub cannot act.

Three steps, each for what the one before does not reach:

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
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, Protocol

from greenlet import GreenletExit, getcurrent

from pools.block_detector import BlockDetector
from pools.errors import HardTimeLimit, PoolError, SoftTimeLimit
from pools.handle import DoneCallback, Handle
from pools.hooks import Target

Cancel = Callable[[], object]

AGAIN_SECONDS = 1.0
"""How often ``Killed`` is thrown into a task that does not end."""
LAG_SECONDS = 0.2
"""How long the hub may be late before the native thread takes part."""


class Killed(GreenletExit, SystemExit):  # type: ignore[misc]
    """Thrown into a task to end it. No ``Exception``, so that ``except Exception`` lets it pass."""


class GreenRun:
    """One task in its slot.

    pid: its number in the place of a pid.  inside: the task's own code runs, so that something may be raised into it.
    soft_at, hard_at: its deadlines, 0.0 for none.  killed_at: when its end was decided.  seen_at: when the hub last
    dealt with that.  All four in monotonic seconds.  end_reason: the error its handle gets.  cancels: each takes back
    one call of the hub.
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
        "soft_raised",
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
        self.inside = self.soft_raised = self.watched = False
        self.soft_at = self.hard_at = self.killed_at = self.seen_at = 0.0
        self.end_reason: PoolError | None = None
        self.cancels: list[Cancel] = []


def perform(run: GreenRun) -> Any:
    """Call the task; what it returns or raises. The native thread looks for the frame of this function."""
    run.inside = True
    try:
        return run.target(*run.args, **run.kwargs)
    finally:
        run.inside = False


class LimitsOwner(Protocol):
    """What the limits need of their pool."""

    log: logging.Logger
    patience_seconds: float

    def on_soft_timeout(self, handle: Handle) -> None:
        """The task has reached its soft limit."""

    def on_hard_timeout(self, handle: Handle) -> None:
        """The task has reached its hard limit."""

    def in_hub_after(self, seconds: float, function: Callable[[], object]) -> Cancel:
        """Call the function in the hub, unless what is returned is called before."""
        ...

    def original_thread(self) -> Any:
        """The ``_thread`` module as it was before the patch."""


class GreenLimits:
    """Keeps the limits of the tasks of one pool and ends them.

    runs: the pool's, by handle.  on_blocked(handle): see above; called in a native thread, at most once.
    """

    def __init__(self, pool: LimitsOwner, runs: Mapping[Handle, GreenRun], on_blocked: DoneCallback | None) -> None:
        self._pool = pool
        self._runs = runs
        self._on_blocked = on_blocked
        self._by_greenlet: dict[Any, GreenRun] = {}
        self._detector: BlockDetector | None = None

    def start(self) -> None:
        """Start the native thread. Only in the main thread may signals be set up."""
        if self._detector is None:
            self._detector = BlockDetector(self._pool.original_thread(), self._check, self._on_signal)

    def begin(self, run: GreenRun) -> None:
        """The greenlet of the run begins with it; ``handle.started_at`` is set."""
        handle = run.handle
        self._by_greenlet[run.greenlet] = run
        if handle.soft_timeout_seconds is not None or handle.timeout_seconds is not None:
            self._set_deadlines(run, handle.started_at)

    def end(self, run: GreenRun) -> None:
        """The task's code has ended. Also for a run that never began."""
        for cancel in run.cancels:
            cancel()
        run.cancels.clear()
        self._by_greenlet.pop(run.greenlet, None)
        if run.watched and self._detector is not None:
            self._detector.forget()

    @property
    def is_lost(self) -> bool:
        """Whether the native thread has ended by itself."""
        return self._detector is not None and self._detector.is_lost

    def close(self) -> None:
        """End the native thread."""
        if self._detector is not None:
            self._detector.close()

    def end_soon(self, run: GreenRun, reason: PoolError) -> None:
        """Let the hub end the task; its handle gets this error. From any greenlet."""
        run.cancels.append(self._pool.in_hub_after(0, partial(self._kill, run, reason)))

    def abandon(self, run: GreenRun, reason: PoolError) -> None:
        """Fail the handle though the task's code goes on. Does nothing for a handle that is done."""
        handle = run.handle
        if not handle.done:
            self._pool.log.error("%r does not end; it is given up, and its slot stays taken", handle)
            handle.abandoned = True
            handle.fail(run.end_reason or reason, time.monotonic())

    # -- by the hub

    def _set_deadlines(self, run: GreenRun, now: float) -> None:
        soft, hard = run.handle.soft_timeout_seconds, run.handle.timeout_seconds
        if hard is not None:
            run.hard_at = now + hard
            over = HardTimeLimit(f"the task ran into its hard time limit of {hard:g} s")
            run.cancels.append(self._pool.in_hub_after(hard, partial(self._kill, run, over)))
        if soft is not None and (hard is None or soft < hard):  # else it would come too late
            run.soft_at = now + soft
            run.cancels.append(self._pool.in_hub_after(soft, partial(self._raise_soft_limit, run)))
        self._watch(run)

    def _watch(self, run: GreenRun) -> None:
        run.watched = True
        self.start()
        assert self._detector is not None
        self._detector.watch()

    def _raise_soft_limit(self, run: GreenRun) -> None:
        if run.inside and not run.soft_raised:
            run.greenlet.throw(self._soft_limit_error(run))

    def _soft_limit_error(self, run: GreenRun) -> SoftTimeLimit:
        run.soft_raised = True
        self._pool.on_soft_timeout(run.handle)
        return SoftTimeLimit(f"the task reached its soft time limit of {run.handle.soft_timeout_seconds:g} s")

    def _kill(self, run: GreenRun, end_reason: PoolError) -> None:
        """In the hub: throw, and look again in a second."""
        if not run.inside:
            return
        self._request_end(run, end_reason)
        now = run.seen_at = time.monotonic()
        if now - run.killed_at >= self._pool.patience_seconds:
            self.abandon(run, end_reason)
        run.cancels.append(self._pool.in_hub_after(AGAIN_SECONDS, partial(self._kill, run, end_reason)))
        run.greenlet.throw(Killed(str(run.end_reason)))

    def _request_end(self, run: GreenRun, end_reason: PoolError) -> None:
        if run.end_reason is not None:
            return
        run.end_reason = end_reason
        run.killed_at = time.monotonic()
        if not run.watched:
            self._watch(run)
        if isinstance(end_reason, HardTimeLimit):
            self._pool.on_hard_timeout(run.handle)

    # -- by a native thread, when the hub does not get to it

    def interrupt(self, reason: PoolError) -> None:
        """End the task that has the main thread now, without waiting for the hub."""
        for run in list(self._runs.values()):
            if run.inside and self._detector is not None and self._has_main_thread(run):
                run.end_reason = run.end_reason or reason
                self._detector.signal_main_thread()

    def _check(self) -> None:
        """In the native thread."""
        now = time.monotonic()
        for run in list(self._runs.values()):
            if self._is_late(run, now) and self._has_main_thread(run):
                self._interrupt(run, now)

    def _interrupt(self, run: GreenRun, now: float) -> None:
        if self._detector is not None:
            self._detector.signal_main_thread()
        if self._on_blocked is not None and self._is_out_of_reach(run, now):
            callback, self._on_blocked = self._on_blocked, None
            run.handle.abandoned = True
            callback(run.handle)

    def _is_late(self, run: GreenRun, now: float) -> bool:
        if not run.inside:
            return False
        if run.end_reason is not None:
            return now - max(run.killed_at, run.seen_at) > AGAIN_SECONDS + LAG_SECONDS
        if run.hard_at and now - run.hard_at > LAG_SECONDS:
            return True
        return bool(run.soft_at and not run.soft_raised and now - run.soft_at > LAG_SECONDS)

    def _is_out_of_reach(self, run: GreenRun, now: float) -> bool:
        """Whether neither the hub nor a signal has got through for so long that waiting makes no sense."""
        since = max(run.seen_at, run.hard_at or run.killed_at)
        return bool(since) and now - since > self._pool.patience_seconds + LAG_SECONDS

    def _has_main_thread(self, run: GreenRun) -> bool:
        """Whether the main thread is inside this very task. Another one that blocks is neither disturbed nor blamed."""
        frame: FrameType | None = sys._current_frames().get(self._detector.main_thread if self._detector else 0)
        while frame is not None:
            if frame.f_code is perform.__code__:
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
            self._request_end(run, HardTimeLimit(f"the task ran into its hard time limit of {hard:g} s"))
        if run.end_reason is not None:
            raise Killed(str(run.end_reason))
        if run.soft_at and now >= run.soft_at and not run.soft_raised:
            raise self._soft_limit_error(run)
