"""Messages whose quick tasks wait in slots of prefork: for everybody they are held and not started, until they are."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.worker.lifecycle import Event, State
from tests.conftest import PATIENCE, eventually
from tests.pools.tasks import lines, mark, wait_for
from tests.worker.loop.test_consumer import Make, World, make, tasks

__all__ = ["make"]

QUICK = 1e-4


@tasks.task(name="holds")
def holds(gate: str) -> None:
    wait_for(gate)


@tasks.task(name="marks")
def marks(path: str, text: str) -> None:
    mark(path, text)


@tasks.task(name="marks early", acks="early")
def marks_early(path: str, text: str) -> None:
    mark(path, text)


Run = Callable[..., World]


@pytest.fixture
def held(make: Make, tmp_path: Path) -> Run:
    """A worker whose two slots run ``holds``, expected to be quick, and some messages behind these. patient: they never
    take longer than expected, however slow the machine."""

    def run(*behind: str, most: int = 64, patient: bool = False) -> World:
        world = make("prefork", 2, look_ahead_most=most)
        world.pool.start()
        for name in ("holds", "marks", "marks early"):
            world.parts.look_ahead.note(name, QUICK)
        for number in (0, 1):
            world.channel.put("holds", str(tmp_path / f"gate {number}"))
        world.until(lambda: len(world.parts.inflight.running) == 2)
        if patient:
            world.parts.look_ahead.seconds = world.pool.quick_seconds = PATIENCE
        for number, name in enumerate(behind):
            world.channel.put(name, str(tmp_path / "marks"), str(number))
        return world

    return run


def in_slots(world: World) -> list[str]:
    return [job.delivery.tag for job in world.parts.inflight.in_slots]


def open_gate(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"gate {number}").touch()


def test_they_are_held_and_count_as_waiting_until_they_start(held: Run, tmp_path: Path) -> None:
    started: list[str] = []
    world = held("marks", "marks", "marks", patient=True)
    world.parts.starting.on_start = lambda job: started.append(job.delivery.tag)
    world.until(lambda: in_slots(world) == ["3", "4", "5"])
    world.parts.reporting.publish(deadline=None)
    view = world.view()
    assert (view.busy, view.waiting, view.reserved) == (2, 3, 5)
    assert {task.task_name for task in view.tasks} == {"holds"}
    assert (started, world.parts.starting.totals["marks"]) == ([], 0)
    assert all(job.started_at == 0 for job in world.parts.inflight.in_slots)

    open_gate(tmp_path, 0, 1)
    world.until(lambda: len(world.channel.acked) == 5)
    assert sorted(started) == ["3", "4", "5"]
    assert world.parts.starting.totals["marks"] == 3
    assert sorted(lines(tmp_path / "marks")) == ["0", "1", "2"]
    world.until(lambda: (world.view().busy, world.view().waiting) == (0, 0))


@pytest.mark.parametrize("event", [Event.HOLD, Event.TERM])
def test_a_drain_and_a_hold_hand_them_back_at_once(held: Run, tmp_path: Path, event: Event) -> None:
    world = held("marks", "marks", patient=True)
    with world.channel.lock:
        world.until(lambda: in_slots(world) == ["3", "4"])
        world.consumer.on_event(event)
    assert [delivery.tag for delivery in world.channel.queue] == ["3", "4"]
    assert len(world.parts.inflight.running) == 2
    open_gate(tmp_path, 0, 1)
    world.until(lambda: world.channel.acked == ["1", "2"] or world.channel.acked == ["2", "1"])
    assert not (tmp_path / "marks").exists()


def test_they_go_back_to_the_queue_when_every_slot_is_stuck(held: Run) -> None:
    given_back: list[bool] = []
    world = held("marks", "marks")
    give_back = world.channel.give_back

    def noted(deliveries: Any, *, unmarked: bool = False) -> None:
        given_back.append(unmarked)
        give_back(deliveries, unmarked=unmarked)

    world.channel.give_back = noted  # type: ignore[method-assign]
    world.until(lambda: bool(given_back))
    assert [delivery.tag for delivery in world.channel.queue] == ["3", "4"]
    assert set(given_back) == {True}
    assert in_slots(world) == []
    assert len(world.parts.inflight.running) == 2


def test_one_that_is_revoked_in_a_slot_does_not_start(held: Run, tmp_path: Path) -> None:
    world = held(patient=True)
    task_id = world.channel.put("marks", str(tmp_path / "marks"), "revoked")
    world.channel.put("marks", str(tmp_path / "marks"), "other")
    world.until(lambda: in_slots(world) == ["3", "4"])
    world.parts.revoked.add([task_id])
    open_gate(tmp_path, 0, 1)
    world.until(lambda: len(world.channel.acked) == 4)
    assert lines(tmp_path / "marks") == ["other"]


@pytest.mark.parametrize(
    ("behind", "how"),
    [
        (("marks early",), {}),
        (("marks",), {"expires": datetime.now(UTC) + timedelta(days=1)}),
        (("holds", "marks"), {}),
    ],
    ids=["early", "expires", "long"],
)
def test_what_must_be_looked_at_when_it_starts_does_not_wait_there(
    held: Run, behind: tuple[str, ...], how: dict[str, Any]
) -> None:
    world = held(patient=True)
    world.parts.look_ahead.note("holds", 2 * PATIENCE)
    for name in behind:
        world.channel.put(name, "", "", **how)
    world.until(lambda: len(world.parts.inflight.waiting) == len(behind))
    assert in_slots(world) == []


def test_nothing_waits_there_from_a_queue_that_counts_what_is_given_back(held: Run) -> None:
    world = held("marks", "marks")
    counted = replace(world.channel.queue[0], headers={**world.channel.queue[0].headers, "x-delivery-count": 1})
    world.channel.queue[0] = counted
    with world.channel.lock:
        for _ in range(3):
            world.consumer.turn()
    assert world.pool.room_for_quick == 0
    assert len(in_slots(world)) == 0


def test_no_more_wait_in_slots_than_the_policy_allows(held: Run) -> None:
    world = held(*["marks"] * 9, most=3)
    with world.channel.lock:
        world.consumer.turn()
    assert len(in_slots(world)) <= 3


def test_a_slot_that_is_killed_starts_none_of_them_and_they_run_once(held: Run, tmp_path: Path) -> None:
    world = held("marks", "marks", patient=True)
    world.until(lambda: in_slots(world) == ["3", "4"])
    jobs = list(world.parts.inflight.in_slots)
    for job in world.parts.inflight.running:
        assert job.handle is not None
        os.kill(job.handle.pid, signal.SIGKILL)
    open_gate(tmp_path, 0, 1)
    world.until(lambda: {"3", "4"} <= set(world.channel.acked))
    assert sorted(lines(tmp_path / "marks")) == ["0", "1"]
    assert [job.delivery.attempts for job in jobs] == [0, 0]
    assert not [headers for _, headers in world.channel.sent if headers.get("task") == "marks"]


def test_a_lost_connection_brings_them_again_and_they_run_once(held: Run, tmp_path: Path) -> None:
    world = held("marks", "marks", patient=True)
    world.channel.again = True
    world.until(lambda: in_slots(world) == ["3", "4"])
    world.channel.lose()
    with world.channel.lock:
        world.consumer.tick(time.monotonic())
        world.consumer.turn()
    world.until(lambda: not in_slots(world))
    world.channel.cut = False
    open_gate(tmp_path, 0, 1)
    world.until(lambda: not world.channel.queue and not world.channel.held and world.parts.life.state is State.READY)
    eventually(lambda: sorted(lines(tmp_path / "marks")) == ["0", "1"])
