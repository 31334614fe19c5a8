"""When the channel is asked for messages, and for how many: the state between two fetches."""

from __future__ import annotations

import time

from fleet.broker.channels.base import TEND_SECONDS
from fleet.broker.delivery import Delivery
from tests.worker.loop.test_consumer import Make, World, make

__all__ = ["make"]


class Asks:
    """A worker that is ready, and what its channel is asked from now on."""

    def __init__(self, world: World) -> None:
        world.until(lambda: world.parts.life.takes_work and world.channel.asked)
        self.world = world
        self.now = time.monotonic()
        world.channel.asked.clear()
        world.parts.fetching.ask_again()

    def fetch(self, *, after_seconds: float = 0.0) -> list[Delivery]:
        with self.world.channel.lock:
            return self.world.parts.fetching.fetch_due(self.now + after_seconds)

    @property
    def counts(self) -> list[int]:
        return self.world.channel.asked


def test_a_channel_that_waits_is_asked_again_by_the_clock_or_when_something_may_have_come(make: Make) -> None:
    asks = Asks(make("threads", 2))
    for _ in range(3):
        assert asks.fetch() == []
    assert asks.counts == [2]
    asks.fetch(after_seconds=TEND_SECONDS)
    assert asks.counts == [2, 2]
    asks.world.parts.connection.readable = True
    asks.fetch()
    asks.fetch()
    assert asks.counts == [2, 2, 2]


def test_a_fetch_that_brought_all_it_wanted_is_followed_by_another(make: Make) -> None:
    asks = Asks(make("threads", 2))
    for number in range(3):
        asks.world.channel.put("note", number)
    assert [len(asks.fetch()) for _ in range(3)] == [2, 1, 0]
    assert asks.counts == [2, 2]
    assert asks.world.parts.fetching.got_at == asks.now


def test_another_number_of_slots_is_asked_for_at_once(make: Make) -> None:
    asks = Asks(make("threads", 2))
    asks.fetch()
    asks.world.parts.settings.set_slots(5)
    asks.fetch()
    assert asks.counts == [2, 5]


def test_a_worker_without_room_says_so_once_and_waits_for_no_clock(make: Make) -> None:
    asks = Asks(make("threads", 2))
    asks.world.parts.settings.set_rate_limit("note", "1/h")
    for number in range(40):
        asks.world.channel.put("note", number)
    asks.world.until(lambda: asks.world.parts.fetching.is_sated and asks.counts[-1:] == [0])
    asks.counts.clear()
    asks.fetch(after_seconds=60.0)
    assert asks.counts == []
    assert asks.world.parts.fetching.next_at is None


def test_without_a_connection_no_fetch_is_due(make: Make) -> None:
    asks = Asks(make("threads", 2))
    asks.fetch()
    assert asks.world.parts.fetching.next_at is not None
    assert asks.world.parts.fetching.wants
    asks.world.channel.lose()
    asks.world.until(lambda: not asks.world.parts.connection.up)
    assert asks.world.parts.fetching.next_at is None
    assert not asks.world.parts.fetching.wants
