"""How many workers may start at the same time, by what their starts turn out to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.core.plan import Step
from fleet.operate.apply.effects import RunningStep, is_heavy

QUICK_SECONDS = 1.0
"""A worker that is ready so soon after it was asked for cost little to start: it was forked from an image."""
MOST_QUICK_STARTS = 64


@dataclass(slots=True)
class Pacing:
    """starts_at_once: how many may start together where nothing is known; None: any number."""

    starts_at_once: int | None
    quick_starts: int = 0

    def allowed(self, ready: list[Step], running: Sequence[RunningStep]) -> list[Step]:
        """Those that may begin now beside these, so that not too many workers start at once."""
        if self.starts_at_once is None:
            return ready
        room = self.starts_at_once + self.quick_starts - sum(is_heavy(one.step) for one in running)
        heavy = [step for step in ready if is_heavy(step)]
        late = {step.id for step in heavy[max(0, room) :]}
        return [step for step in ready if step.id not in late]

    def learn(self, one: RunningStep, *, now: float) -> None:
        """Each worker that was ready at once makes room for one more; one that took its time ends that."""
        if is_heavy(one.step):
            quick = now - one.asked_at < QUICK_SECONDS and one.step.watched_seconds == 0
            self.quick_starts = min(self.quick_starts + 1, MOST_QUICK_STARTS) if quick else 0
