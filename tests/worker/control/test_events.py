"""Events as they are made: fields, lists, bounds. Who reads them on real brokers is tried elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.worker.control import events
from fleet.worker.control.events import HEARTBEAT_SECONDS, UNHEARD_SECONDS, Events
from tests.worker.loop.test_consumer import Make, World, make, ran
from tests.worker.remotes import NODE, Steered

__all__ = ["make"]


class Wire:
    """Where events go. ``cut``: nothing goes any more."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.cut = False

    def __call__(self, body: Any, routing_key: str) -> None:
        if self.cut:
            raise ConnectionError("cut")
        self.sent.append((routing_key, json.loads(json.dumps(body))))

    def tasks(self) -> list[Mapping[str, Any]]:
        return [event for key, body in self.sent if key == "task.multi" for event in body]

    def kinds(self) -> list[str]:
        return [str(event["type"]) for event in self.tasks()]


def watched(world: World) -> tuple[Steered, Events, Wire]:
    steered = Steered(world)
    assert steered.ask("enable_events") == {"ok": "task events enabled"}
    return steered, steered.control.events, Wire()


def test_a_task_is_followed_from_its_arrival_to_its_end(make: Make) -> None:
    world = make("solo", 1)
    _, told, wire = watched(world)
    note = world.channel.put("note", 1)
    world.channel.put("broken")
    world.until(lambda: len(world.channel.acked) == 2)
    told.flush(wire)
    first = [event for event in wire.tasks() if event["uuid"] == note]
    assert [event["type"] for event in first] == ["task-received", "task-started", "task-succeeded"]
    assert {event["hostname"] for event in first} == {NODE}
    assert [event["clock"] for event in wire.tasks()] == sorted({event["clock"] for event in wire.tasks()})
    assert (first[0]["name"], first[0]["args"], first[0]["kwargs"]) == ("note", "(1,)", "{}")
    [retried] = [event for event in wire.tasks() if event["type"] == "task-retried"]
    assert "as asked" in retried["exception"]
    assert "ValueError" in retried["traceback"]


def test_a_task_that_does_not_run_is_revoked_or_failed(make: Make) -> None:
    world = make("solo", 1)
    steered, told, wire = watched(world)
    revoked, expired = world.channel.put("note", 1, countdown=0.2), world.channel.put("note", 2, expires=-5)
    unknown = world.channel.put("nobody")
    steered.ask("revoke", task_id=revoked)
    world.until(lambda: len(world.channel.acked) == 3)
    told.flush(wire)
    ends = {event["uuid"]: event for event in wire.tasks() if event["type"] != "task-received"}
    assert (ends[revoked]["type"], ends[revoked]["expired"], ends[revoked]["terminated"]) == (
        "task-revoked",
        False,
        False,
    )
    assert (ends[expired]["type"], ends[expired]["expired"]) == ("task-revoked", True)
    assert ends[unknown]["type"] == "task-failed"
    assert ran == []


def test_nothing_is_noted_while_they_are_off(make: Make) -> None:
    world = make("solo", 1)
    steered, told, wire = watched(world)
    reported = [world.parts.admission.report]
    assert steered.ask("disable_events") == {"ok": "task events disabled"}
    assert steered.ask("disable_events") == {"ok": "task events already disabled"}
    world.channel.put("note", 1)
    world.until(lambda: world.channel.acked)
    told.flush(wire)
    assert wire.tasks() == []
    assert [*reported, world.parts.admission.report] == [True, False]
    assert told not in world.parts.listeners


def test_the_worker_says_hello_beats_and_says_goodbye(make: Make) -> None:
    told, wire = Steered(make("solo", 1)).control.events, Wire()
    told.flush(wire)
    told.flush(wire)
    told.beat_soon()
    told.flush(wire)
    told.connection_lost()
    told.flush(wire)
    told.say_goodbye(wire)
    assert [key for key, _ in wire.sent] == ["worker.online", "worker.heartbeat", "worker.online", "worker.offline"]
    assert {"freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"} <= set(wire.sent[0][1])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last item is the time."""
    found = [1000.0]
    monkeypatch.setattr(events, "time", SimpleNamespace(**{**vars(time), "monotonic": lambda: found[-1]}))
    return found


def beats(told: Events, wire: Wire, clock: list[float], listeners: int | None) -> list[float]:
    """When, in the next two minutes, heartbeats are sent of which so many hear. Each that is due counts for the app."""
    sent: list[float] = []
    end, began = clock[-1] + 120.0, clock[-1]
    while (at := told.beat_at) < end:
        clock.append(max(at, clock[-1]))
        before = len(wire.sent)
        told.beat(wire)
        if len(wire.sent) > before:
            sent.append(clock[-1] - began)
            told.hearing()(listeners)
    return sent


def test_a_heartbeat_that_nobody_hears_is_sent_about_once_a_minute(make: Make, clock: list[float]) -> None:
    world = make("solo", 1)
    told, wire = Steered(world).control.events, Wire()
    signals: list[float] = []
    told._on_heartbeat = lambda: signals.append(clock[-1]) or True
    told.flush(wire)
    assert beats(told, wire, clock, 0) == [10.0, 60.0, 110.0]
    assert len(signals) == 11, "the app's receivers are called each time"
    assert beats(told, wire, clock, 1)[1:] == pytest.approx([60.0, 70.0, 80.0, 90.0, 100.0, 110.0])


def test_where_nobody_wants_to_know_of_heartbeats_none_is_due_for_a_minute(make: Make, clock: list[float]) -> None:
    told, wire = Steered(make("solo", 1)).control.events, Wire()
    told._on_heartbeat = lambda: False
    told.flush(wire)
    clock.append(told.beat_at)
    told.beat(wire)
    told.hearing()(0)
    assert UNHEARD_SECONDS - HEARTBEAT_SECONDS < told.beat_at - clock[-1] <= UNHEARD_SECONDS
    told.beat_soon()
    told.flush(wire)
    told.hearing()(1)
    assert told.beat_at == clock[-1] + HEARTBEAT_SECONDS


@pytest.mark.parametrize("listeners", [1, 7, None])
def test_a_heartbeat_that_somebody_may_hear_is_sent_each_time(
    make: Make, clock: list[float], listeners: int | None
) -> None:
    told, wire = Steered(make("solo", 1)).control.events, Wire()
    told.flush(wire)
    assert len(beats(told, wire, clock, listeners)) == 11


@pytest.mark.parametrize("when", ["before it is sent", "afterwards"])
def test_who_asks_for_a_heartbeat_hears_those_that_follow(make: Make, clock: list[float], when: str) -> None:
    """The answer about an earlier one, which was sent before anybody listened, comes only now."""
    told, wire = Steered(make("solo", 1)).control.events, Wire()
    told._on_heartbeat = lambda: False
    told.flush(wire)
    clock.append(told.beat_at)
    told.beat(wire)
    unheard = told.hearing()
    told.beat_soon()
    if when == "before it is sent":
        unheard(0)
    told.flush(wire)
    unheard(0)
    clock.append(clock[-1] + HEARTBEAT_SECONDS)
    told.flush(wire)
    assert [key for key, _ in wire.sent] == ["worker.online", *["worker.heartbeat"] * 3]


def test_a_heartbeat_of_several_topics_is_heard_where_one_of_them_is(make: Make, clock: list[float]) -> None:
    told, wire = Steered(make("solo", 1)).control.events, Wire()
    told.flush(wire)
    for answers in ((0, 1), (1, 0)):
        clock.append(told.beat_at)
        told.beat(wire)
        hear = told.hearing()
        for answer in answers:
            hear(answer)
    clock.append(told.beat_at)
    told.beat(wire)
    assert len(wire.sent) == 4


def test_what_a_broken_line_did_not_take_waits_within_bounds(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "MOST_NOTED", 6)
    monkeypatch.setattr(events, "LONGEST_LIST", 4)
    world = make("solo", 1)
    _, told, wire = watched(world)
    wire.cut = True
    for number in range(4):
        world.channel.put("note", number)
    world.until(lambda: len(world.channel.acked) == 4)
    with pytest.raises(ConnectionError):
        told.flush(wire)
    wire.cut = False
    told.connection_lost()
    told.flush(wire)
    assert [len(body) for key, body in wire.sent if key == "task.multi"] == [4, 2]
    assert wire.kinds()[:3] == ["task-received", "task-started", "task-succeeded"]
    assert "6 task events were dropped" in caplog.text
