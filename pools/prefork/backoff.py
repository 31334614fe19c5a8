"""How long to wait after a start that came to nothing: longer each time, so that no storm of starts arises."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.1
MOST_SECONDS = 30.0
SHORT_LIFE_SECONDS = 10.0
"""What lived longer than this did not fail to start, whatever ended it."""


def most_pause_seconds(failures: int) -> float:
    """The pause after this many failures in a row, at most."""
    return float(min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 20)))


def pause_seconds(failures: int) -> float:
    """The same, a little less by chance: the slots of a pool should not try together."""
    return most_pause_seconds(failures) * random.uniform(0.75, 1.0)
