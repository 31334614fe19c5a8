"""A worker that has lost one of its helper threads drains and is replaced: nobody would keep its limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class ThreadWatch:
    """Looks once a second. ``lost_threads`` names those that have ended; ``replace`` is called once."""

    def __init__(self, lost_threads: Callable[[], Sequence[str]], *, replace: Callable[[str], object]) -> None:
        self._lost_threads = lost_threads
        self._replace = replace
        self._told = False

    def __call__(self, now: float) -> None:  # noqa: ARG002
        if self._told or not (lost := self._lost_threads()):
            return
        self._told = True
        self._replace(f"a helper thread has ended: {', '.join(lost)}")
