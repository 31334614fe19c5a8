"""Inside supervisord: has workers forked from an image, stays their parent, writes down how each ended, lists them, and
lets the daemon sleep while nothing happens.

supervisord knows a child by the pid that its own ``fork`` returned, and reaps whatever it is the parent of. So this
plug-in makes it a subreaper (a worker whose parent has ended becomes its child) and replaces ``fork`` for programs of
fleet's launcher by a request to the image. Whatever goes wrong, and whatever takes too long, ends in an ordinary fork.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor.process import Subprocess
from supervisor.states import SupervisorStates
from supervisor.xmlrpc import Faults, RPCError

from fleet import settings
from fleet.backends.supervisor import daemon_rest
from fleet.replica import image as images
from fleet.replica.command import LaunchError, environment, read_document
from fleet.replica.ending import Ending, ending_file, write_ending
from fleet.replica.image import GO, REFUSED, STALE, ImageFiles
from fleet.replica.launch_document import LaunchDocument

ANSWER_SECONDS = settings.load().image_answer_seconds
"""supervisord does nothing else meanwhile."""
PAUSE_SECONDS = 5.0
"""So long an image is left alone that did not answer in time."""
_PR_SET_CHILD_SUBREAPER = 36


def make_interface(supervisord: Any, **_config: Any) -> FleetInterface:
    """What supervisord calls for ``[rpcinterface:fleet]``, each time it has read its configuration."""
    fork = Fork(supervisord.options)
    supervisord.options.fork = fork
    _tell_fork_what_is_spawned()
    _write_down_endings()
    daemon_rest.install(supervisord)
    return FleetInterface(supervisord, fork)


def _tell_fork_what_is_spawned() -> None:
    spawn = Subprocess.spawn
    if getattr(spawn, "tells_fork", False):
        return

    def telling(process: Any) -> Any:
        fork = process.config.options.fork
        if isinstance(fork, Fork):
            fork.spawned = process
        return spawn(process)

    telling.tells_fork = True  # type: ignore[attr-defined]
    Subprocess.spawn = telling


def _write_down_endings() -> None:
    finish = Subprocess.finish
    if getattr(finish, "writes_endings", False):
        return

    def writing(process: Any, pid: int, status: int) -> Any:
        try:
            _write_ending(process, pid, status)
        except Exception as error:  # whatever it is: supervisord must go on
            process.config.options.logger.warn(f"fleet: how {process.config.name} ended is not kept: {error!r}")
        return finish(process, pid, status)

    writing.writes_endings = True  # type: ignore[attr-defined]
    Subprocess.finish = writing


def _write_ending(process: Any, pid: int, status: int) -> None:
    words = shlex.split(process.config.command)
    if words[2:4] != ["-m", "fleet.launch"]:
        return
    document = Path(words[4])
    path = ending_file(document.parent.parent / "records", document.stem)
    write_ending(path, Ending(pid, status, bool(process.killing), time.time()))


class FleetInterface:
    """The calls of fleet's own that supervisord takes, as ``fleet.…``."""

    def __init__(self, supervisord: Any, fork: Fork) -> None:
        self._supervisord = supervisord
        self._fork = fork

    def listProcesses(self) -> str:  # noqa: N802
        """What ``getAllProcessInfo`` says, as far as fleet asks: a tenth of the bytes, and of the time to write them.

        @return string result  JSON: [group, name, state, pid, start, exitstatus, spawnerr] of every process
        """
        return json.dumps(self._rows())

    def listChangedProcesses(self, mark: str) -> str:  # noqa: N802
        """The same as it is this moment, with a mark of it; no list where it is the one of the mark that is given.

        @param string mark  of the list that the caller has, empty without one
        @return string result  JSON: [mark, list or null]
        """
        self._supervisord.reap()
        rows = self._rows()
        now = hashlib.sha1(json.dumps(rows).encode(), usedforsecurity=False).hexdigest()
        return json.dumps([now, None if now == mark else rows])

    def _rows(self) -> list[list[Any]]:
        if self._supervisord.options.mood < SupervisorStates.RUNNING:
            raise RPCError(Faults.SHUTDOWN_STATE)
        groups = sorted(self._supervisord.process_groups.items())
        every = ((group, one) for group, programs in groups for _, one in sorted(programs.processes.items()))
        return [[group, *_facts(process)] for group, process in every]

    def startImage(self, document: str, digest: str) -> bool:  # noqa: N802
        """Start the image for the replica of a launch document; it is ready when its state file says so.

        @param string document  path of the launch document
        @param string digest  the digest it must have
        @return boolean result  False where none can be started
        """
        return self._fork.start_image(Path(document), digest)


def _facts(process: Any) -> tuple[Any, ...]:
    """As ``getProcessInfo`` has them."""
    state, start = process.get_state(), int(process.laststart)
    return process.config.name, state, process.pid, start, process.exitstatus or 0, process.spawnerr or ""


class Fork:
    """``options.fork`` of supervisord. ``spawned``: the process that is about to be forked."""

    def __init__(self, options: Any) -> None:
        self._log = options.logger
        self._fork: Callable[[], int] = options.fork
        self._adopts = False
        self._broken_until: dict[str, float] = {}
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self.spawned: Any = None

    def __call__(self) -> int:
        process, self.spawned = self.spawned, None
        try:
            pid = self._warm(process) if process is not None else 0
        except Exception as error:  # whatever it is: supervisord must go on
            self._log.warn(f"fleet: no worker from an image: {error!r}")
            pid = 0
        return pid or self._fork()

    def start_image(self, path: Path, digest: str) -> bool:
        """Start an image beside the one that may be there; it takes its place when it is ready."""
        try:
            document = read_document(path, digest=digest)
            key = images.key_of(document)
            if not key or not self._adopt():
                return False
            self._start(document, key)
        except (LaunchError, OSError) as error:
            self._log.warn(f"fleet: no image could be started: {error}")
            return False
        return True

    def _adopt(self) -> bool:
        """Be the parent of processes whose own parent has ended. At the first need: a daemon's own fork loses it."""
        if not self._adopts:
            self._adopts = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        return self._adopts

    def _start(self, document: LaunchDocument, key: str) -> None:
        earlier = self._started.get(key)
        if earlier is not None and earlier.poll() is None:
            state = images.read_state(images.files_of(document, key))
            if state is not None and state.pid == earlier.pid and state.phase == "loading":
                return
        self._broken_until.pop(key, None)  # it was said of the one before
        environ = {images.ROOM_VARIABLE: "-" * images.ROOM_BYTES, **environment(document, os.environ)}
        for name in images.OWN_VARIABLES:
            environ.pop(name, None)
        python = document.spec.python or sys.executable
        command = [python, "-P", "-m", "fleet.worker.image", str(document.path), document.digest]
        nothing = subprocess.DEVNULL  # supervisord's own may be closed
        image = self._started[key] = subprocess.Popen(
            command, env=environ, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
        images.write_state(
            images.files_of(document, key), images.ImageState(key, image.pid, "loading", document.spec.app)
        )
        self._log.info(f"fleet: image {key} starts with pid {image.pid}")

    def _warm(self, process: Any) -> int:
        """The pid of a worker from an image; 0 where this process starts without one."""
        words = shlex.split(process.config.command)
        if words[2:4] != ["-m", "fleet.launch"]:
            return 0
        document = read_document(Path(words[4]), digest=words[5])
        key = images.key_of(document)
        files = images.files_of(document, key)
        if not key or time.monotonic() < self._broken_until.get(key, 0.0) or not files.state.exists():
            return 0
        try:
            answer = self._ask(files, words[4], words[5]) if self._adopt() else 0
        except TimeoutError:
            self._broken_until[key] = time.monotonic() + PAUSE_SECONDS
            self._log.warn(f"fleet: image {key} did not answer within {ANSWER_SECONDS:g} s")
            return 0
        except OSError:
            answer = 0
        if not answer:
            self._start_again(document, files)
        return answer

    def _start_again(self, document: LaunchDocument, files: ImageFiles) -> None:
        """For those that come next, unless the app cannot be forked anyway."""
        state = images.read_state(files)
        if state is None or state.phase == "ready" or not state.is_current:
            self._start(document, files.key)

    def _ask(self, files: ImageFiles, document: str, digest: str) -> int:
        """The pid of a new child; it waits for the last word, and ends where that does not come."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(files.socket))
            connection.send(images.request(document, digest))
            answer = connection.recv(64)
            if answer in (STALE, REFUSED, b""):
                return 0
            pid = int(answer)
            connection.send(GO)
            return pid
