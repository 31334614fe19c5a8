"""Hooks of an app for workers that are forked from an image: a process that has imported the app.

    from fleet.forking import after_fork, before_fork

    @before_fork
    def hang_up(): connection.close()

    @after_fork
    def reconnect(): connection.connect()

A worker that starts without an image calls neither. A prefork worker's own children are not meant: for them there is
the signal ``worker_process_init``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Hook = TypeVar("Hook", bound=Callable[[], object])

_before: list[Callable[[], object]] = []
_after: list[Callable[[], object]] = []


def before_fork(hook: Hook) -> Hook:
    """Call it once in the image, when the app is imported: close connections and end threads there.

    An error in it, and what is still open after it, means that workers start without an image.
    """
    _before.append(hook)
    return hook


def after_fork(hook: Hook) -> Hook:
    """Call it in each worker that was forked from the image, before it takes tasks. An error ends that worker."""
    _after.append(hook)
    return hook


def run_before_fork() -> None:
    """Call what was registered, in that order."""
    for hook in _before:
        hook()


def run_after_fork() -> None:
    """Call what was registered, in that order."""
    for hook in _after:
        hook()
