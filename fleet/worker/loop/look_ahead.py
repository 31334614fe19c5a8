"""How many messages to take ahead of the slots that are free: what is done within a few milliseconds."""

from __future__ import annotations

from fleet.core.spec import TaskPolicy as ManifestPolicy

_WEIGHT = 1 / 8
_LONGEST_IN_SPANS = 4.0
"""A long task counts as so many spans, so that its name is short again after a dozen quick runs."""
_MOST_NAMES = 10_000


class LookAhead:
    """Follows how long tasks run, each name and all together.

    ``count`` is 0 until tasks have been quick: it is at most the number of quick tasks since the last that was not, and
    what is done within ``seconds``, by a moving average. One task that takes longer sets it to 0.

    quick_seconds: a task that takes no longer may wait in a slot behind another such, from where it can be taken back;
    0.0: none may.
    """

    def __init__(self, policy: ManifestPolicy) -> None:
        self.count = 0
        self._by_name: dict[str, float] = {}
        self._average = 0.0
        self._quick_in_a_row = 0
        self.adopt(policy)

    def adopt(self, policy: ManifestPolicy) -> None:
        """Follow this policy from now on. Where people set how many messages to hold, nothing is taken ahead."""
        self.seconds = policy.look_ahead_seconds
        self.most = policy.look_ahead_most if policy.prefetch is None else 0
        self.quick_seconds = self.seconds if self.most else 0.0
        self.stop()

    def note(self, name: str, run_seconds: float) -> None:
        """A task of this name has run for so long."""
        if not self.most:
            return
        span = self.seconds
        run_seconds = max(run_seconds, 1e-9)
        average = self._by_name.get(name)
        if average is None and len(self._by_name) >= _MOST_NAMES:
            self._by_name.clear()
        self._by_name[name] = average = _moved(average, run_seconds, span)
        self._average = _moved(self._average or None, run_seconds, span)
        if run_seconds > span or average > span:
            self._quick_in_a_row = self.count = 0
            return
        self._quick_in_a_row += 1
        within_span = int(span / max(self._average, 1e-9))
        self.count = min(self.most, self._quick_in_a_row, within_span)

    def stop(self) -> None:
        """Take nothing ahead until tasks have been quick again."""
        self._quick_in_a_row = self.count = 0

    def is_quick(self, name: str) -> bool:
        """Whether the next task of this name is expected to be done within the span. One that is not known is not."""
        return self._by_name.get(name, self.seconds + 1.0) <= self.seconds

    def expected_seconds(self, name: str) -> float:
        """How long the next task of this name is expected to run; 0.0 where that is not known."""
        return self._by_name.get(name, 0.0)

    def may_wait_in_slot(self, name: str) -> bool:
        """Whether the next task of this name may wait in a slot behind another such."""
        return 0 < self.expected_seconds(name) <= self.quick_seconds


def _moved(average: float | None, run_seconds: float, span: float) -> float:
    """The moving average with one more run; a run that is longer than the span counts at once."""
    bounded = min(run_seconds, _LONGEST_IN_SPANS * span)
    if average is None or run_seconds > span:
        return bounded
    return average + (bounded - average) * _WEIGHT
