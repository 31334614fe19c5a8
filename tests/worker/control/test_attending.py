"""When remote control is attended: when a command comes, when there is something to send, and in time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.broker.channels.base import TEND_SECONDS, ChannelLost
from fleet.worker.control.control import BEAT_SECONDS, POLL_SECONDS, UNUSED_SECONDS, Control
from fleet.worker.control.events import FLUSH_SECONDS, HEARTBEAT_SECONDS
from fleet.worker.control.in_loop import ControlInLoop
from tests.worker.loop.test_consumer import Make, World, make
from tests.worker.remotes import Steered

__all__ = ["make"]


class Wire:
    """A mailbox with one socket."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.drained = 0
        self.sent: list[str] = []
        self.facts: dict[str, Any] = {}

    def fds(self) -> list[int]:
        return [self.read]

    def drain(self) -> None:
        self.drained += 1
        os.set_blocking(self.read, False)
        try:
            os.read(self.read, 100)
        except BlockingIOError:
            return

    beats = False
    rested = 0

    def sealed_event(self, body: Any, routing_key: str) -> tuple[list[str], bytes]:
        return ["/0.celeryev", f"/0.celeryev/{routing_key}"], body["type"].encode()

    def rest(self) -> None:
        self.rested += 1

    def beat(self) -> None:
        return

    def publish(self, body: Any, routing_key: str) -> None:
        self.sent.append(routing_key)

    def close(self) -> None:
        for end in (self.read, self.write):
            os.close(end)
        self.close = lambda: None  # type: ignore[method-assign]


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


def controlled(world: World, wire: Wire | None) -> Control:
    control = Steered(world).control
    control._mailbox = wire  # type: ignore[assignment]
    control._connect_at = math.inf
    return control


def test_with_a_socket_and_nothing_to_send_it_sleeps_until_a_command_comes(make: Make, wire: Wire) -> None:
    control = controlled(make("threads", 1), wire)
    for _ in range(2):
        control.attend()
    assert wire.sent == ["worker.online"]
    assert control.poll_seconds is None


def test_a_connection_that_beats_is_kept_by_the_clock(make: Make, wire: Wire) -> None:
    wire.beats = True
    control = controlled(make("threads", 1), wire)
    for _ in range(2):
        control.attend()
    pause = control.poll_seconds
    assert pause is not None
    assert FLUSH_SECONDS < pause <= BEAT_SECONDS


def test_the_loop_sends_heartbeats_when_it_looks_anyway(make: Make, wire: Wire) -> None:
    control = controlled(make("threads", 1), wire)
    control.every_second(time.monotonic() + 2 * HEARTBEAT_SECONDS)
    assert wire.sent == [], "a worker that is not online yet says so from where it attends"
    control.attend()
    at = control.events.beat_at

    control.every_second(at - TEND_SECONDS - 0.1)
    assert wire.sent == ["worker.online"]
    control.every_second(at - TEND_SECONDS + 0.1)
    assert wire.sent == ["worker.online", "worker.heartbeat"]
    assert control.events.beat_at > at - TEND_SECONDS


def test_a_heartbeat_of_the_loop_that_fails_hangs_up_and_tells_whoever_attends(make: Make, wire: Wire) -> None:
    control = controlled(make("threads", 1), wire)
    control.attend()
    told: list[str] = []
    control.before_hanging_up = lambda: told.append("before")
    control.on_hung_up = lambda: told.append("after")
    wire.publish = broken  # type: ignore[method-assign]

    control.every_second(control.events.beat_at)

    assert (told, control.fds()) == (["before", "after"], [])
    assert control.poll_seconds == POLL_SECONDS


def test_where_the_tasks_connection_can_it_carries_the_heartbeat(make: Make, wire: Wire) -> None:
    control = controlled(make("threads", 1), wire)
    control.attend()
    told: list[tuple[str, bytes]] = []
    control._broadcast = lambda topic, payload, hear: told.append((topic, payload))
    control.every_second(control.events.beat_at)
    assert told == [(topic, b"worker-heartbeat") for topic in ("/0.celeryev", "/0.celeryev/worker.heartbeat")]
    assert wire.sent == ["worker.online"]

    def lost(topic: str, payload: bytes, *, hear: object) -> None:
        raise ChannelLost("the loop notices that itself")

    control._broadcast = lost
    control.every_second(control.events.beat_at)
    assert control.fds() == wire.fds(), "remote control has a connection of its own"


def test_what_is_only_for_sending_is_closed_when_nobody_has_asked_for_a_while(make: Make, wire: Wire) -> None:
    control = controlled(make("threads", 1), wire)
    control.attend()
    at = control._attended_at
    for seconds, rested in [(UNUSED_SECONDS - 1, 0), (UNUSED_SECONDS + 1, 1)]:
        control.events.beat_at = at
        control.every_second(at + seconds)
        assert wire.rested == rested


def broken(body: Any, routing_key: str) -> None:
    raise OSError("the server has gone away")


def test_without_a_connection_or_a_socket_it_looks_by_the_clock(make: Make, wire: Wire) -> None:
    assert controlled(make("threads", 1), None).poll_seconds == POLL_SECONDS
    control = controlled(make("threads", 1), wire)
    control._mailbox = SimpleNamespace(fds=list)  # type: ignore[assignment]
    assert control.poll_seconds == POLL_SECONDS


def test_a_heartbeat_that_is_due_is_never_waited_for_without_a_pause(make: Make, wire: Wire) -> None:
    """Events are sent a few times a second at most: a pause of nothing would keep the processor busy until then."""
    control = controlled(make("threads", 1), wire)
    control.attend()
    control.events.beat_soon()
    pause = control.poll_seconds
    assert pause is not None
    assert pause > 0.0 or wire.sent == ["worker.online"]
    control._flush_at = 0.0
    assert control.poll_seconds == 0.0
    control.attend()
    assert wire.sent == ["worker.online", "worker.heartbeat"]


def test_in_the_loop_a_command_is_answered_and_an_event_is_sent(make: Make, wire: Wire) -> None:
    world = make("threads", 1)
    control = controlled(world, wire)
    ControlInLoop(control, world.loop).start()
    world.until(lambda: world.parts.life.takes_work)
    before = wire.drained
    os.write(wire.write, b"x")
    world.until(lambda: wire.drained > before)
    control.events.switch(on=True)
    world.channel.put("note", 1)
    world.parts.connection.readable = True
    world.until(lambda: "task.multi" in wire.sent)


def test_in_the_loop_a_connection_that_is_made_again_is_watched(make: Make, wire: Wire) -> None:
    world = make("threads", 1)
    control = controlled(world, wire)
    ControlInLoop(control, world.loop).start()
    other = Wire()

    def broken() -> None:
        raise OSError("gone")

    wire.drain = broken  # type: ignore[method-assign]
    wire.close = lambda: None  # type: ignore[method-assign]
    os.write(wire.write, b"x")
    world.until(lambda: control._mailbox is None)
    control._mailbox = other  # type: ignore[assignment]
    world.until(lambda: other.drained > 0)
    before = other.drained
    os.write(other.write, b"x")
    world.until(lambda: other.drained > before)
    other.close()
