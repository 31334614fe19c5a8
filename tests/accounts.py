"""A second account on this machine, for tests of what one user may do to another."""

from __future__ import annotations

import os
import pickle
import pwd
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAME = "nobody"
needs_second_account = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a second account")


def uid() -> int:
    return pwd.getpwnam(NAME).pw_uid


def gid() -> int:
    return pwd.getpwnam(NAME).pw_gid


def give(*paths: Path) -> None:
    for path in paths:
        os.lchown(path, uid(), gid())


def open_to_all(folder: Path) -> Path:
    """Every folder above it can be entered: pytest keeps its own for its user."""
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.geteuid() and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
    return folder


def as_nobody(action: Callable[[], Any]) -> Any:
    """What the action returns or raises when the second account does it, in a child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become_nobody()
            result: tuple[bool, Any] = (True, action())
        except BaseException as error:
            result = (False, error)
        os.write(writing, pickle.dumps(result))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    done, value = pickle.loads(data)
    if not done:
        raise value
    return value


@contextmanager
def attacker(action: Callable[[], object]) -> Iterator[None]:
    """The second account does this again and again, until the block ends."""
    child = os.fork()
    if child == 0:
        become_nobody()
        while True:
            try:
                action()
            except OSError:
                continue
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(gid())
    os.setuid(uid())
