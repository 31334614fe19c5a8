"""A worker that has lost one of its helper threads drains and is replaced: nobody would keep its limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class ThreadWatch:
    """Looks once a second. ``lost_threads`` names those that have ended; ``replace`` is called once.

    Two looks in a row must name the same one: a thread that is being started is not alive yet.
    """

    def __init__(self, lost_threads: Callable[[], Sequence[str]], *, replace: Callable[[str], object]) -> None:
        self._lost_threads = lost_threads
        self._replace = replace
        self._lost_before: set[str] = set()
        self._told = False

    def __call__(self, now: float) -> None:  # noqa: ARG002
        lost = self._lost_threads()
        sure = [name for name in lost if name in self._lost_before]
        self._lost_before = set(lost)
        if sure and not self._told:
            self._told = True
            self._replace(f"a helper thread has ended: {', '.join(sure)}")
