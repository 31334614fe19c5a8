"""Raises an exception in another thread, and only inside the task that this thread runs.

CPython raises such an exception at the thread's next bytecode. In a thread that executes C code (a sleep, a
socket, a long computation of a library) it is raised when that code returns.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pools import logging_locks
from pools.errors import Killed, SoftTimeLimit

INTERRUPTIONS = (SoftTimeLimit, Killed)
"""The only types that are raised in this way."""

# A prototype of its own: argument types set on ctypes.pythonapi would be set for the whole program.
_raise_in_thread = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)
_NOTHING: Any = ctypes.py_object()


class Interruptible:
    """One thread that runs tasks through ``call``, which may be interrupted from other threads.

    An interruption is set only while ``_inside`` names its task, and ``_inside`` is cleared by the first thing that
    happens after the task. So at most one interruption can still be on its way when a task has ended, and it lands
    within ``call``, which waits until it is set, then takes it back or catches it. The next task never sees it.

    A task may be announced with ``expect`` before it is called: what is to interrupt it by then is raised as it begins.
    """

    __slots__ = ("_expected", "_inside", "_interrupted", "_lock", "_missed", "ident")

    def __init__(self) -> None:
        self.ident = threading.get_ident()
        self._lock = threading.Lock()
        self._inside: object = None
        self._interrupted = False
        self._expected: object = None
        self._missed: BaseException | None = None

    def expect(self, task: object) -> None:
        """In the thread itself: this task will be called next, and may be interrupted from now on."""
        with self._lock:
            self._expected, self._missed = task, None

    def call(
        self, task: object, target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, BaseException | None]:
        """In the thread itself: run the target as the task of this name; what it returned, and what it raised."""
        value: Any = None
        failure: BaseException | None = None
        interrupted = False
        try:
            try:
                self._enter(task)
                value = target(*args, **kwargs)
                self._inside = None
            except BaseException as error:
                self._inside = None
                failure = error
            interrupted = self._interrupted
            if interrupted:
                self._take_back()
        except INTERRUPTIONS:
            interrupted = True  # it came when the task had ended
        if interrupted:
            logging_locks.release_own()
        return value, failure

    def interrupt(self, task: object, error: BaseException) -> bool:
        """From another thread: raise an exception of this type in the task; False when it does not run any more."""
        with self._lock:
            if self._expected is task:
                self._missed = error
                return True
            # First: `call` must see it if the task ends just now.
            earlier, self._interrupted = self._interrupted, True
            if self._inside is not task:
                self._interrupted = earlier
                return False
            _raise_in_thread(self.ident, type(error))
            return True

    def _enter(self, task: object) -> None:
        with self._lock:
            self._expected = None
            missed, self._missed = self._missed, None
            if missed is None:
                self._inside = task
        if missed is not None:
            raise missed

    def _take_back(self) -> None:
        with self._lock:
            self._interrupted = False
            _raise_in_thread(self.ident, _NOTHING)
