"""What a worker that was forked from an image does differently from one that was started with exec."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from fleet import forking, launch
from fleet.replica.command import LaunchError
from fleet.replica.image import ROOM_VARIABLE
from fleet.replica.launch_document import LaunchDocument

_ENVIRONMENT_FIELD = 47


class Mark:
    """The place at the top of the environment that /proc shows, where a worker's own mark is written.

    The backend finds replicas by it, and the kernel shows the environment that a process was started with.
    """

    def __init__(self) -> None:
        self._room = os.environ.pop(ROOM_VARIABLE, "")

    def write(self, document: str) -> None:
        """Mark this process as the replica that this launch document is of. Raises LaunchError without room."""
        text = b"FLEET_SPEC=%b\0FLEET_PID=%d\0" % (os.fsencode(document), os.getpid())
        room = len(ROOM_VARIABLE) + 1 + len(self._room)
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start = int(fields[_ENVIRONMENT_FIELD])
        there = ctypes.string_at(start, len(ROOM_VARIABLE)) if start and self._room else b""
        if there != ROOM_VARIABLE.encode() or len(text) > room:
            raise LaunchError("the environment has no room for this replica's mark")
        ctypes.memmove(start, text.ljust(room, b"\0"), room)


def set_title(title: str) -> None:
    """What ``ps`` shows of this process."""
    with suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(title)


def give_seeds() -> None:
    """Random numbers differ from those of other workers: ``random``, ``ssl`` and ``uuid`` see to it themselves."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed()


def become_worker(document: LaunchDocument) -> NoReturn:
    """Run the worker in this process, which has imported everything."""
    from fleet.worker.__main__ import main

    launch.settle(document)
    launch.announce(document)
    # As a fresh interpreter does: a peer that goes away, a broker for one, is an error of the write and no death.
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, signal.SIG_IGN)
    os.environ.pop("SUPERVISOR_ENABLED", None)
    sys.argv = ["fleet.worker", str(document.path)]
    forking.run_after_fork()
    code = main([str(document.path)])
    leave(code)


def leave(code: int) -> NoReturn:
    """End this process as a worker ends, without a return into the image's frames."""
    if "fleet.worker.process" in sys.modules:
        from fleet.worker.process import leave as leave_worker

        with suppress(SystemExit):
            leave_worker(code)
    _run_exit_functions()
    os._exit(code)


def _run_exit_functions() -> None:
    """What the interpreter does at its end: threads are waited for, then what was registered is called."""
    import atexit
    import threading

    with suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]
    with suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
