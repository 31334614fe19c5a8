"""A group that moves, and the constants by which it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fleet.core.balance.shares import Share

DEFAULT_TARGET_WAIT_SECONDS = 5.0
DEFAULT_RUNTIME_SECONDS = 1.0
DEFAULT_IDLE_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ScaledGroup:
    """A group that moves: its part of the budget, what it promises, and what its pool makes slots cost.

    start_seconds: until a new slot takes its first task.  loans: whether it may have more than its static share.
    """

    share: Share
    target_wait_seconds: float = DEFAULT_TARGET_WAIT_SECONDS
    expected_runtime_seconds: float = DEFAULT_RUNTIME_SECONDS
    start_seconds: float = 0.0
    idle_after_seconds: float = DEFAULT_IDLE_AFTER_SECONDS
    loans: bool = True
    on_missing_metrics: Literal["hold", "static"] = "hold"

    @property
    def name(self) -> str:
        return self.share.name

    @property
    def floor(self) -> int:
        """Its min, in whole units."""
        return -(-self.share.min // self.share.unit) * self.share.unit

    def ceiling(self, budget: int) -> int:
        """The most it may have of that many slots, in whole units."""
        most = budget if self.share.max is None else min(self.share.max, budget)
        return most // self.share.unit * self.share.unit

    def bounded(self, slots: int, *, most: int) -> int:
        """That many slots in whole units, rounded up; at most ``most``, and never below its floor."""
        unit = self.share.unit
        return max(self.floor, min(-(-slots // unit) * unit, most))


@dataclass(frozen=True, slots=True)
class Parameters:
    """Every constant of the decision. The defaults were found by simulation; only a few are the user's to set.

    tick_seconds: time between two decisions.  aim: the part of targetWait that is aimed at, so that there is room.
    burst_sigma, burst_seconds: what counts as a burst.  shift_sigma: when an older rate no longer counts.
    up_hold_seconds: how long a rise must last that no backlog urges.  tolerance: changes too small to make.
    down_factor, down_least_seconds, down_most_seconds: patience before slots go, by the pool's start time.
    squeeze_seconds: how long a shortage cuts everybody to the bare need.  surplus: what is done with idle slots.
    loan_within_seconds: None, or how soon a group must be able to give back what it has beyond its share.
    """

    tick_seconds: float = 2.0
    aim: float = 0.6
    window_seconds: float = 60.0
    window_arrivals: int = 100
    runtime_window_seconds: float = 120.0
    burst_sigma: float = 4.0
    burst_seconds: float = 10.0
    shift_sigma: float = 2.0
    up_hold_seconds: float = 6.0
    tolerance: float = 0.1
    down_factor: float = 20.0
    down_least_seconds: float = 15.0
    down_most_seconds: float = 300.0
    squeeze_seconds: float = 120.0
    static_after_seconds: float = 300.0
    surplus: Literal["keep", "release"] = "release"
    loan_within_seconds: float | None = None

    def patience_seconds(self, group: ScaledGroup) -> float:
        """How long a group must want less before slots go: the dearer a start, the longer."""
        wished = self.down_factor * group.start_seconds
        return min(self.down_most_seconds, max(self.down_least_seconds, wished))


def tick_seconds(groups: Sequence[ScaledGroup]) -> float:
    """Time between decisions where the manifest says ``auto``: short targets need quick looks."""
    return 1.0 if any(group.target_wait_seconds < 4.0 for group in groups) else 2.0
