"""How long to wait before another attempt: twice as long after each one that failed, up to a bound."""

from __future__ import annotations

_MOST_DOUBLINGS = 62


def backoff_seconds(failures: int, *, initial_seconds: float, max_seconds: float) -> float:
    """``initial_seconds * 2^failures``, at most ``max_seconds``; for the first failure ``failures`` is 0."""
    return min(max_seconds, initial_seconds * 2.0 ** max(0, min(failures, _MOST_DOUBLINGS)))
