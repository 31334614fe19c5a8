"""What runs inside a child: its signal handlers, the initializer, then task after task until the parent hangs up."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import multiprocessing.process
import multiprocessing.util
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pools.errors import SoftTimeLimit
from pools.loop import EventLoop
from pools.prefork.parent_link import ChildEnds
from pools.prefork.protocol import (
    BEGUN,
    BEGUN_OFFSET,
    FAILURE,
    INIT_FAILED,
    RESULT,
    SIGNAL_PAGE,
    WORKER_UP,
    dump_failure,
    dump_result,
    load,
    send_report,
)
from pools.prefork.task_pipe import TaskReader

ENDED_EXIT_CODE = 143
INIT_FAILED_EXIT_CODE = 70

_OWN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_ALL_SIGNALS = tuple(signal.valid_signals())
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class ChildOptions:
    """What the pool tells its children; picklable where the start method is not fork.

    preload: called once in each fresh interpreter, before the initializer: in the zygote, or in each spawned child.
    title: of the process, with the number of the slot behind it.  report_memory: whether reports carry ``rss``.
    """

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    finalizer: Callable[[], object] | None = None
    preload: Callable[[], object] | None = None
    title: str = ""
    report_memory: bool = False


@dataclass(slots=True)
class ForkOptions:
    """What a forked child has of its parent and must not keep.

    loop: the parent's event loop, closed in the child.  private_fds: descriptors that only the parent may use.
    """

    loop: EventLoop | None = None
    private_fds: Callable[[], Iterable[int]] | None = None


class ChildProcess:
    """One child, from its start to its exit.

    running: the number of the job whose code runs, 0 outside of task code, where signals must not raise.
    """

    def __init__(
        self,
        child_ends: ChildEnds,
        index: int,
        read_options: Callable[[], ChildOptions],
        fork_options: ForkOptions | None = None,
    ) -> None:
        self.socket: socket.socket = child_ends.socket
        self._tasks: socket.socket = child_ends.tasks
        self.signal_page: mmap.mmap = child_ends.open_signal_page()
        self.running = 0
        self._soft_raised = 0
        self._read_options = read_options
        self._index = index
        self._fork_options = fork_options or ForkOptions()
        self._statm = -1
        self._masks: dict[int, set[int | signal.Signals]] = {}
        self._child_ends = child_ends

    def run(self) -> None:
        """Run tasks until the parent hangs up. SystemExit when the initializer fails or a task is ended."""
        self._set_up_process()
        try:
            options = self._read_options()
            self._initialize(options)
        except BaseException as error:
            self._send(INIT_FAILED, 0, 0.0, 0.0, dump_failure(error, traceback.format_exc()))
            raise SystemExit(INIT_FAILED_EXIT_CODE) from None
        self._send(WORKER_UP, 0, 0.0, 0.0, b"")
        try:
            self._serve()
        finally:  # also when its task was told to end
            if options.finalizer is not None:
                options.finalizer()

    # -- start

    def _set_up_process(self) -> None:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        self._child_ends.bind_to_parent()
        signal.set_wakeup_fd(-1)
        if self._fork_options.loop is not None:
            self._fork_options.loop.close()
        self._set_signal_handlers()
        self._replace_descriptors()
        os.register_at_fork(
            before=self._block_signals, after_in_parent=self._unblock_signals, after_in_child=self._reset_in_grandchild
        )
        _reset_multiprocessing()

    def _set_signal_handlers(self) -> None:
        for signum in _ALL_SIGNALS:
            if callable(signal.getsignal(signum)):
                signal.signal(signum, signal.SIG_DFL)
        # Handlers and not SIG_IGN, which programs started by a task would inherit.
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGINT, _do_nothing)
        signal.signal(signal.SIGUSR1, self._on_soft_limit)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _replace_descriptors(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        private = self._fork_options.private_fds
        for fd in () if private is None else tuple(private()):
            # Not closed but replaced: the parent's object, copied here, would close the number once more.
            os.dup2(null, fd, inheritable=False)
        if null > 2:
            os.close(null)

    def _block_signals(self) -> None:
        """A task forks. A signal that is on its way already waits until the new process has handlers of its own."""
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _OWN_SIGNALS)

    def _unblock_signals(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _reset_in_grandchild(self) -> None:
        """In a process that a task forked: it is not a slot, and with our handlers terminate() could not end it."""
        self.socket.close()
        self._tasks.close()
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._unblock_signals()

    def _initialize(self, options: ChildOptions) -> None:
        if options.title:
            set_title(f"{options.title} slot {self._index}")
        if options.report_memory:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        if options.initializer is not None:
            options.initializer(*options.initargs)

    # -- signals

    def _on_soft_limit(self, signum: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002
        job = self.running
        soft_job, _, seconds = SIGNAL_PAGE.unpack_from(self.signal_page)
        if job and job == soft_job and job != self._soft_raised:
            self._soft_raised = job
            raise SoftTimeLimit(f"the task reached its soft time limit of {seconds:g} s")

    def _on_terminate(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # A TERM to the whole group of the worker must not cut a task; one for this very job is on the signal page.
        job = self.running
        if job and SIGNAL_PAGE.unpack_from(self.signal_page)[1] == job:
            self.running = 0
            raise SystemExit(ENDED_EXIT_CODE)

    # -- tasks

    def _serve(self) -> None:
        tasks = TaskReader(self._tasks)
        while (task := tasks.read()) is not None:
            job, body = task
            BEGUN.pack_into(self.signal_page, BEGUN_OFFSET, job)  # a child that is killed may read and get no further
            report = self._run_task(job, body)
            del task, body
            self._send(*report)  # all of it, before the next task is read: the parent relies on this
            del report

    def _run_task(self, job: int, body: memoryview) -> tuple[int, int, float, float, bytes]:
        started = time.monotonic()
        try:
            target, args, kwargs = load(body)
            body.release()
            self.running = job
            self._on_soft_limit()  # it may have been reached while the arguments were loaded
            value = target(*args, **kwargs)
            self.running = 0
            ended = time.monotonic()
            return RESULT, job, started, ended, dump_result(value)
        except BaseException as error:
            ended_by_parent = not self.running and isinstance(error, SystemExit)
            self.running = 0
            if ended_by_parent:
                raise
            return FAILURE, job, started, time.monotonic(), _describe(error)

    def _send(self, kind: int, job: int, started: float, ended: float, body: bytes) -> None:
        send_report(self.socket, kind, job, started, ended, self._resident_bytes(), body)

    def _resident_bytes(self) -> int:
        if self._statm < 0:
            return 0
        try:
            return int(os.pread(self._statm, 128, 0).split(None, 2)[1]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):  # the task closed it
            return 0


def _describe(error: BaseException) -> bytes:
    """Without the frame of this module: the traceback begins where the task begins."""
    inner = error.__traceback__.tb_next if error.__traceback__ is not None else None
    try:
        text = "".join(traceback.format_exception(type(error), error, inner))
    except Exception:  # an exception may fail to print itself
        text = f"{type(error).__qualname__} (its traceback cannot be made)\n"
    return dump_failure(error, text)


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    pass


def _reset_multiprocessing() -> None:
    """The standard library's record of children and finalizers is the parent's, and does not apply here."""
    process: Any = multiprocessing.process
    process._children = set()
    process._process_counter = itertools.count(1)
    multiprocessing.util._finalizer_registry.clear()  # type: ignore[attr-defined]
    multiprocessing.util._run_after_forkers()  # type: ignore[attr-defined]


def set_title(title: str) -> None:
    """Set the title of this process, where setproctitle is installed."""
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(title)
