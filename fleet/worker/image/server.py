"""An image: it imports an app, and answers whoever asks for a worker with the pid of one that it forked.

The plug-in in supervisord starts it and asks it for workers (``fleet/backends/supervisor/image_plugin.py``). It runs no
task, has one thread and no connection but its own socket, and reads every file again that has changed since: by
ending, so that a new image takes its place. Where it is patched for a green pool it waits, asks and forks by what was
there before the patch: its own event loop never runs, only those of its workers do.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from fleet import forking, launch
from fleet.core.desired import split_name
from fleet.core.spec import WorkerSpec
from fleet.errors import FleetError
from fleet.replica import image as images
from fleet.replica import launch_document
from fleet.replica.command import LaunchError, environment, read_document
from fleet.replica.image import GO, OWN_VARIABLES, REQUEST_BYTES, STALE, ImageFiles, ImageState
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.memory_merging import ask_for_merging
from fleet.worker.image.fork_safety import Watched, problems, read_files
from fleet.worker.image.forked_worker import Mark, become_worker, give_seeds, set_title
from fleet.worker.image.unpatched import Socket, accept, close, fork, poll, waitpid
from pools import pool_class
from pools.errors import PoolUnavailable
from pools.freeze import freeze_for_forks
from pools.patching import make_event_loop, renew_event_loop

LOOK_SECONDS = 10.0
"""How often it looks whether anybody may still want a worker from it."""
FIRST_SECONDS = 120.0
"""So long it waits for its first worker: it may be loaded while what that one needs is still starting."""


def run(path: Path, digest: str, *, missing: PoolUnavailable | None = None) -> int:
    """Import the app and answer until nobody wants a worker of this kind, or a file has changed.

    missing: why this process could not be patched for its pool.
    """
    try:
        launch.die_with_parent(path)
        document = read_document(path, digest=digest)
        key = images.key_of(document)
        files = images.files_of(document, key)
        if path == files.preloaded:
            path.unlink()  # it may hold secrets
        launch.open_log(files.log)
    except (LaunchError, OSError) as error:
        print(f"no image: {error}", file=sys.stderr)
        return 1
    set_title(f"fleet: image {key} ({document.fleet}) {document.spec.app}")
    if document.spec.merge_memory:
        ask_for_merging()  # its workers tell where it fails
    image = Image(document, files)
    return image.serve() if image.load(missing) else 0


class Image:
    """One app, imported, and the socket that workers are asked for at."""

    def __init__(self, document: LaunchDocument, files: ImageFiles) -> None:
        self.files = files
        self.spec = document.spec
        self._specs = document.run_folder / "specs"
        self._waits_until = time.monotonic() + FIRST_SECONDS
        self._seen: dict[str, images.Stamp | None] = {}
        self._groups = {self.spec.group}
        self._own: frozenset[int] = frozenset()
        self._mark = Mark()
        self._listener: socket.socket | None = None
        self._inode = 0
        self._looked: images.Stamp | None = None

    # --- loading

    def load(self, missing: PoolUnavailable | None = None) -> bool:
        """Import everything; whether workers may be forked from this process."""
        self._say("loading")
        self._own = make_event_loop()
        began = time.time_ns()
        launch.settle_folder(self.spec.workdir or str(self._specs.parent.parent))
        with Watched(OWN_VARIABLES) as watched:
            try:
                if missing is not None:
                    raise missing
                import_all(self.spec)
                forking.run_before_fork()
            except Exception as error:
                traceback.print_exc()
                cause = error.__cause__ or error
                self._seen = images.stamps(read_files(watched))
                self._say("failed", f"{type(cause).__name__}: {cause}")
                return False
        self._seen = images.stamps(read_files(watched))
        if found := [*watched.problems, *problems(but=self._own, after_import=True)]:
            self._say("refused", "; ".join(found))
            return False
        if any(one is not None and one[0] > began for one in self._seen.values()):
            self._say("failed", "a file has changed while the app was imported")
            return False
        self._listen()
        freeze_for_forks()
        self._say("ready")
        return True

    def _listen(self) -> None:
        """Bind beside its place and move it there: an earlier image of this key loses its address, and ends."""
        fresh = self.files.folder / f".{os.getpid()}"
        fresh.unlink(missing_ok=True)
        listener = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mask = os.umask(0o177)
        try:
            listener.bind(str(fresh))
        finally:
            os.umask(mask)
        listener.listen(128)
        self._inode = fresh.stat().st_ino
        os.replace(fresh, self.files.socket)
        self._listener = listener

    def _say(self, phase: str, reason: str = "") -> None:
        state = ImageState(
            self.files.key,
            os.getpid(),
            phase,
            self.spec.app,
            reason,
            revision=self.spec.revision,
            files=self._seen,
        )
        images.write_state(self.files, state)
        launch.say(f"image {self.files.key}: {phase}{f': {reason}' if reason else ''}")

    # --- answering

    def serve(self) -> int:
        """Answer one request after the other until it is of no use any more."""
        listener = self._listener
        assert listener is not None
        waiting = poll()
        waiting.register(listener, select.POLLIN)
        while True:
            if not waiting.poll(LOOK_SECONDS * 1000):
                if self._is_unwanted():
                    return self._end("nobody needs it any more")
                continue
            with accept(listener) as connection, suppress(OSError, ValueError):
                if why := self._answer(connection):
                    return self._end(why)

    def _answer(self, connection: socket.socket) -> str:
        """Fork one worker; why this image must end, or ''."""
        connection.settimeout(1.0)
        request = json.loads(connection.recv(REQUEST_BYTES))
        changed = next((path for path, seen in self._seen.items() if images.stamp(path) != seen), "")
        if changed:
            connection.send(STALE)
            return f"{changed} has changed"
        if found := problems(but=(*self._own, self._fileno(), connection.fileno())):
            connection.send(images.REFUSED)
            self._say("refused", "; ".join(found))
            return found[0]
        self._be_ready_for(Path(request["document"]))
        pid = self._fork_twice(connection, request)
        connection.send(b"%d" % pid)
        return ""

    def _be_ready_for(self, path: Path) -> None:
        group, _ = split_name(path.stem)
        if group not in self._groups:
            self._groups.add(group)
            import_pool_of(path)
            freeze_for_forks()

    def _fileno(self) -> int:
        return -1 if self._listener is None else self._listener.fileno()

    def _fork_twice(self, connection: socket.socket, request: dict[str, str]) -> int:
        """The pid of a worker whose parent has ended, so that supervisord is its parent now."""
        reading, writing = os.pipe()
        between = fork()
        if between == 0:
            self._middle(connection, request, reading, writing)
        close(writing)
        try:
            answer = os.read(reading, 64)
            waitpid(between, 0)
        finally:
            close(reading)
        return int(answer)

    def _middle(self, connection: socket.socket, request: dict[str, str], reading: int, writing: int) -> NoReturn:
        """Fork the worker, and end however that goes: what the app registered for its end is its workers'."""
        code = 1
        try:
            close(reading)
            worker = fork()
            if worker == 0:
                close(writing)
                _leave_after(lambda: self._worker(connection, request))
            os.write(writing, b"%d" % worker)
            code = 0
        except OSError:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _worker(self, connection: socket.socket, request: dict[str, str]) -> NoReturn:
        """In the new process: wait until supervisord knows it, then be what `launch` makes of a process."""
        renew_event_loop()
        os.setpgrp()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        if self._listener is not None:
            self._listener.close()
        if not _may_go(connection):
            os._exit(0)
        path, digest = request["document"], request["digest"]
        own = environment(read_document(Path(path), digest=digest), {})
        os.environ.update({name: own[name] for name in OWN_VARIABLES})
        self._mark.write(path)
        give_seeds()
        os.environ["SUPERVISOR_ENABLED"] = "1"  # the launcher then checks that its parent is the fleet's supervisord
        os.umask(0o077)
        launch.launch([path, digest], become=become_worker, keeps_files=True)

    # --- ending

    def _is_unwanted(self) -> bool:
        """Whether no launch document is of this kind any more, or another image has its place."""
        try:
            if self.files.socket.stat().st_ino != self._inode:
                return True
        except OSError:
            return True
        looked = images.stamp(str(self._specs))
        if looked == self._looked:
            return False
        if any(self._is_of_this_kind(path) for path in self._specs.glob("*.json")):
            self._looked, self._waits_until = looked, 0.0
            return False
        return time.monotonic() >= self._waits_until

    def _is_of_this_kind(self, path: Path) -> bool:
        with suppress(launch_document.DocumentError):
            return images.key_of(launch_document.read(path)) == self.files.key
        return False

    def _end(self, why: str) -> int:
        launch.say(f"image {self.files.key}: ends: {why}")
        with suppress(OSError):
            if self.files.socket.stat().st_ino == self._inode:
                self.files.socket.unlink()
                if images.read_state(self.files) and "refused" not in self.files.state.read_text():
                    self.files.state.unlink()
        return 0


def import_all(spec: WorkerSpec) -> None:
    """Everything that a worker of this spec imports, now or later: what is imported after the fork is not shared.

    Raises FleetError for an app that cannot be imported.
    """
    from fleet.worker import process  # noqa: F401
    from fleet.worker.apps.load import load
    from fleet.worker.image.preload import import_for

    application = load(spec.app)
    application.complete()
    import_for(spec, application)


def import_pool_of(path: Path) -> None:
    """The pool of the worker with this launch document: groups that share an image may differ in it."""
    with suppress(launch_document.DocumentError, PoolUnavailable):
        pool_class(launch_document.read(path).spec.pool.type)


def _may_go(connection: socket.socket) -> bool:
    """Whether supervisord has this process in its books; else nobody would ever reap or stop it."""
    connection.settimeout(5.0)
    try:
        return connection.recv(len(GO)) == GO
    except OSError:
        return False
    finally:
        connection.close()


def _leave_after(work: Callable[[], NoReturn]) -> NoReturn:
    """In a child: nothing may return into the image's own code."""
    from fleet.worker.image.forked_worker import leave

    code = 1
    try:
        work()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except FleetError as error:
        launch.say(error.message)
    except BaseException:
        traceback.print_exc()
    leave(code)
