"""How long to wait after a start that failed: longer each time, so that starts do not use up the machine."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.1
MOST_SECONDS = 30.0
SHORT_LIFE_SECONDS = 10.0
"""A process that has lived longer than this did not fail to start, whatever ended it."""


def most_pause_seconds(failures: int) -> float:
    """Most seconds to wait after this many failures in a row (at least 1): 0.1, 0.2, 0.4, … 30."""
    return float(min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(failures - 1, 20)))


def pause_seconds(failures: int) -> float:
    """The same, up to a quarter less at random, so that the slots of a pool do not try together."""
    return most_pause_seconds(failures) * random.uniform(0.75, 1.0)
