"""What the shop sold on a day, and the totals of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

ARTICLES = ("anvil", "bell", "candle", "drum")
ORDERS = 20_000


def orders(day: int) -> Iterator[tuple[str, int]]:
    """(article, cents) of every order, always the same for the same day."""
    chance = random.Random(day)
    for _ in range(ORDERS):
        yield chance.choice(ARTICLES), chance.randrange(100, 10_000)


def totals(day: int) -> dict[str, int]:
    """Article -> cents."""
    sums: Counter[str] = Counter()
    for article, cents in orders(day):
        sums[article] += cents
    return dict(sums)
