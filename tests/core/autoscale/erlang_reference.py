"""Erlang's formulas as textbooks print them: what the code's quicker way is compared with."""

from __future__ import annotations

from itertools import accumulate
from math import exp


def waiting_probability(slots: int, load: float) -> float:
    """The chance that a task must wait, with ``load`` busy slots on average (Erlang C)."""
    if load >= slots:
        return 1.0
    terms = list(accumulate(range(1, slots + 1), lambda term, number: term * load / number, initial=1.0))
    last = terms[-1] * slots / (slots - load)
    return last / (sum(terms[:-1]) + last)


def late_probability(slots: int, load: float, *, task_seconds: float, within_seconds: float) -> float:
    """The chance that a task waits longer than ``within_seconds``."""
    if load >= slots:
        return 1.0
    return waiting_probability(slots, load) * exp(-(slots - load) * within_seconds / task_seconds)
