"""Whether this process may be forked: one thread, no connections, no locks that processes share, and nothing read that
differs per replica."""

from __future__ import annotations

import builtins
import io
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet.worker.image.unpatched import Socket, fork, waitpid

_UNSHARABLE = ("socket:", "pipe:", "anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:inotify")

_SHARED = (
    ("/dev/shm/sem.", "a lock of multiprocessing"),
    ("/dev/shm/pym-", "a value of multiprocessing"),
    ("/dev/shm/psm_", "shared memory"),
    ("/dev/zero ", "shared memory"),
)
"""How the kernel calls what ``multiprocessing`` and ``mmap`` make without a file."""


class Watched:
    """While an app is imported: which files it opens, and whether it reads a variable that differs per replica."""

    def __init__(self, variables: Sequence[str]) -> None:
        self.opened: set[str] = set()
        self._read: dict[str, str] = {}
        self._variables = frozenset(variables)
        self._open, self._os_open = builtins.open, os.open

    @property
    def problems(self) -> list[str]:
        """Why what was imported cannot serve several replicas."""
        return [f"{where} reads {name} while it is imported" for name, where in self._read.items()]

    def __enter__(self) -> Watched:
        def watched_open(file: Any, *args: Any, **kwargs: Any) -> Any:
            if not set(str(args[0] if args else kwargs.get("mode", "r"))) & set("wax+"):
                self._note(file)
            return self._open(file, *args, **kwargs)

        def watched_os_open(path: Any, *args: Any, **kwargs: Any) -> int:
            if not (args[0] if args else kwargs.get("flags", 0)) & (os.O_WRONLY | os.O_RDWR):
                self._note(path)
            return self._os_open(path, *args, **kwargs)

        builtins.open = io.open = watched_open
        os.open = watched_os_open
        for name in self._variables:
            os.environ.pop(name, None)
        os.environ.__class__ = _watched_environ(self._on_read)
        return self

    def __exit__(self, *_: object) -> None:
        builtins.open = io.open = self._open
        os.open = self._os_open
        os.environ.__class__ = os._Environ

    def _note(self, file: object) -> None:
        if isinstance(file, str | bytes | os.PathLike):
            with suppress(OSError, ValueError):
                self.opened.add(os.path.abspath(os.fsdecode(file)))

    def _on_read(self, name: object) -> None:
        if name in self._variables:
            frame = sys._getframe(2)
            while frame.f_back is not None and frame.f_globals.get("__name__") in (
                "os",
                "collections.abc",
                "_collections_abc",
                __name__,
            ):
                frame = frame.f_back
            self._read.setdefault(str(name), str(frame.f_globals.get("__name__")))


def _watched_environ(on_read: Callable[[object], None]) -> type:
    class WatchedEnviron(os._Environ):  # type: ignore[type-arg]
        def __getitem__(self, key: Any) -> Any:
            on_read(key)
            return super().__getitem__(key)

    return WatchedEnviron


def read_files(watched: Watched) -> set[str]:
    """What a change of means that the app must be imported again: its modules, what it opened, and the folders that
    installed packages are in."""
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    below = tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in installed if folder)
    below += ("/proc/", "/dev/", "/sys/", f"{sys.prefix}{os.sep}lib", f"{sys.base_prefix}{os.sep}lib")
    modules = {
        os.path.abspath(file)
        for module in list(sys.modules.values())
        if isinstance(file := getattr(module, "__file__", None), str)
    }
    own = {path for path in modules | watched.opened if not path.startswith(below) and not path.endswith(".pyc")}
    return {path for path in own if not os.path.isdir(path)} | {folder for folder in installed if folder}


def problems(*, but: Iterable[int] = (), after_import: bool = False) -> list[str]:
    """What stands against a fork of this process. ``but``: descriptors of its own.

    after_import: the first look. After a first fork: a library that ends its threads before one, as OpenBLAS does, is
    safe. And at memory, which nobody makes afterwards.
    """
    if after_import:
        child = fork()
        if child == 0:
            os._exit(0)
        waitpid(child, 0)
    found = [*_threads(), *_connections(set(but))]
    return [*found, *_shared_memory()] if after_import else found


def _threads() -> list[str]:
    threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    found = [f"importing the app starts thread {thread.name!r}{_started_by(thread)}" for thread in threads]
    others = len(os.listdir("/proc/self/task")) - 1 - len(threads)
    if others > 0:
        found.append(f"importing the app starts {others} {'thread' if others == 1 else 'threads'} outside of Python")
    return found


def _started_by(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None) or type(thread)
    module = getattr(target, "__module__", "")
    return f" of {module}" if module else ""


def _connections(but: set[int]) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            kind = os.readlink(f"/proc/self/fd/{name}")
            if int(name) > 2 and int(name) not in but and kind.startswith(_UNSHARABLE):
                found.append(f"importing the app opens {_described(int(name), kind)}")
    return found


def _shared_memory() -> list[str]:
    """A lock in it would be held for ever by a worker that is killed, and all the others would wait for it."""
    mappings = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    places = [fields[5] for fields in mappings if len(fields) == 6 and fields[1].endswith("s")]
    found = dict.fromkeys(what for place in places for begin, what in _SHARED if place.startswith(begin))
    return [f"importing the app makes {what} that all workers would share" for what in found]


def _described(descriptor: int, kind: str) -> str:
    if not kind.startswith("socket:"):
        return f"a descriptor that workers cannot share ({kind.partition(':')[0]})"
    copy = Socket(fileno=os.dup(descriptor))
    try:
        return f"a connection to {copy.getpeername()}"
    except OSError:
        return "a socket"
    finally:
        copy.close()
