"""Starts a process, by fork or as a fresh interpreter: the only module that uses billiard.

Of billiard's start methods only the parts are used. Its ``spawn`` keeps a semaphore tracker (one more process) per
program; the children of its ``forkserver`` are reaped by it, which loses the signal that killed them, and a fork
server that died is never replaced.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing.process
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from billiard import context, spawn, util
from billiard import process as billiard_process
from billiard.compat import spawnv_passfds
from billiard.context import ForkProcess
from billiard.popen_fork import Popen
from billiard.process import current_process
from billiard.util import _args_from_interpreter_flags

from pools.prefork.parent_link import ChildEnds

_ALL_SIGNALS = signal.valid_signals()

Main = Callable[[ChildEnds], None]


class _Fork(Popen):  # type: ignore[misc]
    """billiard's fork without its pipe: the pidfd shows the exit too, and a task's processes cannot keep it open."""

    def __init__(self, process: ForkProcess) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, None, or its reader is gone: no reason not to fork
                stream.flush()
        self.returncode = None
        self._launch(process)

    def _launch(self, process: ForkProcess) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = process._bootstrap()
            finally:
                os._exit(code)


class _SlotProcess(ForkProcess):  # type: ignore[misc]
    """Not a daemon: its tasks may start processes. ``index`` is what Celery's tasks and logs read."""

    _Popen = staticmethod(_Fork)

    def __init__(self, main: Main, child_ends: ChildEnds, index: int) -> None:
        super().__init__(target=main, args=(child_ends,), name=f"slot-{index}", daemon=False)
        self.index = index

    def run(self) -> None:
        _set_standard_process(self.name, self.index)
        super().run()

    def _bootstrap(self) -> int:
        """As billiard's, without its walk over all loggers to renew their locks: Python does that itself after a fork,
        and the walk writes to memory that the child shares with its parent."""
        try:
            context._force_start_method(self._start_method)
            billiard_process._process_counter = itertools.count(1)
            billiard_process._children = set()
            _close_standard_input()
            earlier = current_process()
            billiard_process._set_current_process(self)
            util._finalizer_registry.clear()
            util._run_after_forkers()
            del earlier
            try:
                self.run()
            finally:
                util._exit_function()
            return 0
        except SystemExit as ended:
            return _exit_code(ended)
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()


def _close_standard_input() -> None:
    """What the parent has read of it ahead is not the child's. A worker has an empty one, which it can keep."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stdin is not None and not _is_empty_device(sys.stdin):
            sys.stdin.close()
            sys.stdin = open(os.devnull)  # noqa: SIM115 (for as long as the process lives)


def _is_empty_device(stream: Any) -> bool:
    try:
        return os.fstat(stream.fileno()).st_rdev == os.stat(os.devnull).st_rdev
    except (OSError, ValueError, AttributeError):  # a program may put any object there
        return False


def _exit_code(ended: SystemExit) -> int:
    """As at the end of a program: an error that is text is printed."""
    if not ended.args:
        return 1
    code = ended.args[0]
    if isinstance(code, int):
        return code
    sys.stderr.write(f"{code}\n")
    return 0 if isinstance(code, str) else 1


class _StandardProcess(multiprocessing.process.BaseProcess):
    """The same process for the standard library's multiprocessing, with its own kind of key: that one can travel."""

    def __init__(self, name: str, index: int) -> None:
        super().__init__(name=name, daemon=False)
        self.index = index
        self._parent_pid = os.getppid()


def _set_standard_process(name: str, index: int) -> None:
    """billiard puts its own object here, whose key the standard library cannot send to a fresh interpreter."""
    process: Any = multiprocessing.process
    process._current_process = _PROGRAM  # a new process object is derived from the current one
    process._current_process = _StandardProcess(name, index)


_PROGRAM = multiprocessing.process.current_process()


def fork_child(main: Main, child_ends: ChildEnds, index: int) -> int:
    """Fork a process that runs ``main(child_ends)``; its pid. OSError when the system refuses."""
    process = _SlotProcess(main, child_ends, index)
    with all_signals_blocked(), _memory_shared():
        process.start()
    pid = int(process.pid)
    # The pool waits for its children itself: billiard must neither reap them in passing nor join them at exit.
    process._children.discard(process)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # the child does it too, and may be first
    return pid


def exec_child(entry: str, child_ends: ChildEnds, index: int) -> int:
    """Start a fresh interpreter that calls ``entry``, a function ``module:name``, with its end of the link; its pid."""
    module, _, function = entry.partition(":")
    arguments = f"{child_ends.fds}, {child_ends.dies_with_parent_thread}, {index}"
    call = f"from {module} import {function}; {function}({arguments})"
    program = os.fsdecode(spawn.get_executable())
    with all_signals_blocked():  # as after a fork: until its own handlers are in place
        return int(spawnv_passfds(program, [program, *_args_from_interpreter_flags(), "-c", call], child_ends.fds))


def be_slot_process(main: Main, child_ends: ChildEnds, index: int) -> NoReturn:
    """In a fresh interpreter: be the process of a slot, and end with it."""
    code = 1
    try:
        code = _SlotProcess(main, child_ends, index)._bootstrap()
    finally:
        os._exit(code)


def describe_program() -> dict[str, Any]:
    """What a fresh interpreter must know to find the modules of this program, its ``__main__`` included."""
    described: dict[str, Any] = spawn.get_preparation_data("slot")
    for name in ("name", "start_method", "authkey"):  # of billiard's own processes, and the key does not travel
        del described[name]
    if not os.path.exists(described.get("init_main_from_path", "/")):  # typed in, or read from a pipe
        del described["init_main_from_path"]
    return described


def take_on_program(described: dict[str, Any]) -> None:
    """In a fresh interpreter: have the same path, and the same ``__main__`` under a name that keeps it from running."""
    process = current_process()
    process._inheriting = True  # a __main__ that makes a pool without asking for its name is told so
    try:
        spawn.prepare(described)
    finally:
        del process._inheriting


@contextlib.contextmanager
def all_signals_blocked() -> Iterator[None]:
    """The child unblocks them when its own handlers are in place; until then the parent's must not run in it."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextlib.contextmanager
def _memory_shared() -> Iterator[None]:
    """Hide all objects from the child's garbage collector: what it does not visit it does not copy."""
    frozen_before = gc.get_freeze_count() > 0
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_before:
            gc.unfreeze()
