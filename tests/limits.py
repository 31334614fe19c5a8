"""Time limits that strike inside the task, on a machine that may take its time to get there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMITS_SECONDS = (0.05, 0.5, 5.0, 50.0)


def struck_inside(attempt: Callable[[float], T | None]) -> T:
    """What ``attempt(limit_seconds)`` found. It returns None where the limit struck before the task had come to the
    place where the test wants it struck; then it is called again, with a longer limit.
    """
    for seconds in LIMITS_SECONDS:
        found = attempt(seconds)
        if found is not None:
            return found
    raise AssertionError(f"a limit of {LIMITS_SECONDS[-1]} s struck before the task had begun to wait")
