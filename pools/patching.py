"""Makes the standard library cooperative for the green pools: first of all, or not at all.

A module that took ``socket.socket`` or ``threading.Lock`` before the patch keeps the blocking one, and a worker with a
few of those hangs in ways nobody finds. So ``patch`` refuses when such a module is there already, and the pools refuse
a process that is not patched.
"""

from __future__ import annotations

import _thread
import os
import selectors
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pools.errors import PoolUnavailable

GREEN = ("gevent", "eventlet")

_TOO_LATE = (
    "asyncio",
    "concurrent.futures.thread",
    "multiprocessing.connection",
    "ssl",
    "urllib3",
    "requests",
    "redis",
    "amqp",
    "kombu",
    "celery",
)
"""Modules that keep the blocking names for good once they are imported."""

_MUST_BE_GREEN = {
    "gevent": ("socket", "select", "time", "_thread"),
    "eventlet": ("socket", "select", "time", "thread"),
}

BLOCKING_SELECTOR = selectors.DefaultSelector
"""The selector that does not yield to other greenlets, taken before a patch put another in its place.

A program that was patched before it imported this module has only the cooperative one.
"""

INSTALL = {"gevent": "pip install gevent", "eventlet": "pip install 'workerfleet[eventlet]'"}


def patch(name: str) -> None:
    """Patch this process for ``gevent`` or ``eventlet``. PoolUnavailable when it is too late or not installed."""
    if is_patched(name):
        return
    for other in GREEN:
        if other != name and is_patched(other):
            raise PoolUnavailable(f"this process is patched for {other} already", hint="one process serves one of them")
    if late := _imported_too_early():
        raise PoolUnavailable(
            f"too late to patch this process for {name}: {late}",
            hint="patch before anything else is imported; look at sitecustomize, .pth files and `python -X importtime`",
        )
    library = import_green(name, "gevent.monkey" if name == "gevent" else "eventlet")
    if name == "gevent":
        library.patch_all()
    else:
        library.monkey_patch()


def is_patched(name: str) -> bool:
    """Whether the standard library is this library's. Imports nothing."""
    if name == "gevent":
        monkey = sys.modules.get("gevent.monkey")
        return monkey is not None and all(map(monkey.is_module_patched, _MUST_BE_GREEN[name]))
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and all(map(patcher.is_monkey_patched, _MUST_BE_GREEN[name]))


def is_green() -> bool:
    """Whether waiting in this process lets other greenlets run."""
    return any(map(is_patched, GREEN))


def require_patched(name: str) -> None:
    """PoolUnavailable in a process whose standard library blocks."""
    if not is_patched(name):
        call = "gevent.monkey.patch_all()" if name == "gevent" else "eventlet.monkey_patch()"
        raise PoolUnavailable(
            f"the {name} pool needs a process that was patched for {name} before anything else was imported",
            hint=f"begin the program with `import pools.patching; pools.patching.patch({name!r})` (or {call}); "
            "fleet's worker does it by itself",
        )


def unpatched(module: str, name: str) -> Any:
    """What a module of the standard library has under this name in a process that is not patched."""
    if is_patched("gevent"):
        return import_module("gevent.monkey").get_original(module, name)
    if is_patched("eventlet"):
        return getattr(import_module("eventlet.patcher").original(module), name)
    return getattr(import_module(module), name)


def make_event_loop() -> frozenset[int]:
    """The descriptors of gevent's event loop in this thread, which is made here; none where gevent is not there."""
    if not is_patched("gevent"):
        return frozenset()
    before = _descriptors()
    import_module("gevent").get_hub()
    return _descriptors() - before


def renew_event_loop() -> None:
    """In a child of a fork that gevent did not see: its event loop gets descriptors of its own, and the time of now."""
    if is_patched("gevent"):
        gevent = import_module("gevent")
        gevent.reinit()
        gevent.get_hub().loop.update_now()


def require_installed(name: str) -> None:
    """PoolUnavailable where the library is missing. Imports nothing."""
    if find_spec(name) is None:
        raise PoolUnavailable(f"the {name} pool needs {name}, which is not installed", hint=INSTALL[name])


def import_green(name: str, module: str) -> Any:
    """A module of the library ``name``, without the warning that eventlet greets everybody with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        raise PoolUnavailable(f"the {name} pool needs {name}: {error}", hint=INSTALL[name]) from error


def _descriptors() -> frozenset[int]:
    names = os.listdir("/proc/self/fd")  # the one that reads this folder is among them, and closed when it has done so
    return frozenset(int(name) for name in names if os.path.lexists(f"/proc/self/fd/{name}"))


def _imported_too_early() -> str:
    early = [module for module in _TOO_LATE if module in sys.modules]
    if early:
        return f"imported before: {', '.join(early)}"
    running = _thread._count()
    return f"{running} threads run already" if running else ""
