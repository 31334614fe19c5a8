"""A worker with nothing to do looks at nothing for a long while, and whatever concerns it wakes it."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.broker.channels.base import TEND_SECONDS, ChannelLost
from fleet.replica import record
from fleet.replica.notice import LOOK, look_now
from fleet.worker.lifecycle import State
from fleet.worker.loop.autoscaler import Bounds
from tests.conftest import PATIENCE, eventually
from tests.worker.loop.test_consumer import Make, World, make, ran

__all__ = ["make"]

REST_SECONDS = 3600.0


def at_rest(make: Make, pool: str = "threads") -> World:
    """Its channel says when something comes, and nothing has come for a while."""
    world: World = make(pool, 1)
    world.channel.poll_seconds, world.channel.rest_seconds = None, REST_SECONDS
    world.until(lambda: world.parts.life.takes_work)
    rest(world)
    return world


def rest(world: World) -> None:
    world.parts.fetching.got_at = -math.inf
    world.consumer.tick(time.monotonic())
    world.parts.fetching.ask_again()
    until_at_rest(world)


def until(world: World, check: Callable[[], bool]) -> None:
    """Every turn is woken: one of a worker at rest would last for an hour."""

    def looked() -> bool:
        world.loop.wake()
        return check()

    world.until(looked)


def until_at_rest(world: World) -> None:
    until(world, lambda: patience_seconds(world) > REST_SECONDS / 2)


def patience_seconds(world: World) -> float:
    return world.consumer.pauses.until_due(world.consumer._tick_at)


@pytest.mark.parametrize("pool", ["solo", "threads", "asyncio"])
def test_what_comes_wakes_it_and_it_looks_again_while_it_works(make: Make, pool: str) -> None:
    world = at_rest(make, pool)
    tended: list[None] = []
    world.channel.tend = lambda: tended.append(None)  # type: ignore[method-assign]
    world.channel.put("note", 7)
    world.parts.connection.readable = True
    world.until(lambda: world.channel.acked)
    assert ran == [7]
    world.until(lambda: tended)
    assert patience_seconds(world) <= TEND_SECONDS


@pytest.mark.parametrize("over", [True, False])
def test_a_rest_that_the_broker_ends_is_one_wake_up(make: Make, over: bool) -> None:
    world = at_rest(make)
    ticks: list[float] = []
    world.consumer.every_second.append(ticks.append)
    world.channel.rested = over
    world.parts.connection.readable = True
    with world.channel.lock:
        world.loop.wake()
        world.consumer.turn()
    assert bool(ticks) == over
    assert patience_seconds(world) > REST_SECONDS / 2
    world.parts.connection.readable = False
    with world.channel.lock:
        world.loop.wake()
        world.consumer.turn()
    assert bool(ticks) == over, "nothing has come over the connection"


def test_a_connection_that_breaks_while_it_rests_is_made_again(make: Make) -> None:
    world = at_rest(make)
    world.channel.lose()
    world.parts.connection.readable = True
    with world.channel.lock:
        world.loop.wake()
        world.consumer.turn()
    assert not world.parts.connection.up
    world.channel.cut = False
    until(world, lambda: world.parts.connection.up)


def disturbances() -> dict[str, Callable[[World], Any]]:
    def lose(world: World) -> None:
        world.channel.cut = True
        world.parts.connection.lose(ChannelLost("cut"))

    return {
        "a task that runs": lambda world: world.channel.put("waits"),
        "a message with a date": lambda world: world.channel.put("note", countdown=3600),
        "a lost connection": lose,
        "slots that follow the work": lambda world: world.parts.settings.autoscale(Bounds(1, 2)),
        "a stop with a task": lambda world: (world.channel.put("waits"), world.box.post(signal.SIGTERM)),
        "a message": lambda world: setattr(world.parts.fetching, "got_at", time.monotonic()),
    }


@pytest.mark.parametrize("what", disturbances())
def test_with_something_in_hand_it_looks_every_second(make: Make, what: str) -> None:
    world = at_rest(make)
    disturbances()[what](world)
    world.parts.connection.readable = True
    for _ in range(3):
        world.loop.wake()
        with world.channel.lock:
            world.consumer.turn()
    world.consumer.tick(time.monotonic())
    assert patience_seconds(world) <= TEND_SECONDS


def test_a_look_that_a_tick_has_made_is_not_due_any_more(make: Make) -> None:
    world = at_rest(make)
    due = [time.monotonic()]
    world.consumer.pauses.looks.append(lambda: due[0])
    world.consumer.every_second.append(lambda now: due.insert(0, now + 2 * REST_SECONDS))
    world.consumer.tick(time.monotonic())
    assert patience_seconds(world) > REST_SECONDS / 2


def test_a_rest_ends_in_time_for_a_look_that_is_due(make: Make) -> None:
    world = at_rest(make)
    now = time.monotonic()
    due: list[float | None] = [None, now + 60.0]
    world.consumer.pauses.looks += [lambda: due[0], lambda: due[1]]
    with world.channel.lock:
        assert world.consumer.pauses.until_tick(now) == pytest.approx(60.0)
        due[0] = now - 5.0
        assert world.consumer.pauses.until_tick(now) == TEND_SECONDS
        due[:] = [None, None]
        assert world.consumer.pauses.until_tick(now) == REST_SECONDS


def test_that_it_consumes_again_is_in_the_record_long_before_its_next_look(make: Make) -> None:
    world = at_rest(make)
    world.channel.lose()
    until(world, lambda: not world.parts.connection.up)
    before = world.view().consumed_at
    world.channel.cut = False
    until(world, lambda: world.parts.connection.up)
    until(world, lambda: world.view().consumed_at > before)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_hold_and_its_end_are_noticed_at_once(make: Make, pool: str) -> None:
    world = at_rest(make, pool)
    for on, state in ((True, State.HELD), (False, State.READY)):
        record.set_hold(world.record_path, on=on)
        world.box.post(LOOK)
        until(world, lambda state=state: world.parts.life.state is state)  # type: ignore[misc]
        until_at_rest(world)


def test_it_leaves_at_once(make: Make) -> None:
    world = at_rest(make)
    world.box.post(signal.SIGTERM)
    world.until(lambda: world.parts.life.state is State.STOPPED)


# --- the notice


PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGURG, lambda *_: (print("heard", flush=True), os._exit(0)))
print("ready", flush=True)
signal.pause()
"""


def kept_by(path: Path, pid: int, *, foreign: bool = False) -> None:
    record.Record(path, digest="d", slots=1, pid=pid, foreign=foreign).close()


def test_the_worker_that_keeps_a_record_is_woken(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "ready\n"
            kept_by(tmp_path / "g.0.rec", program.pid)
            look_now(tmp_path / "g.0.rec")
            assert select.select([program.stdout], [], [], PATIENCE)[0]
            assert program.stdout.readline() == "heard\n"
        finally:
            program.kill()


def test_nobody_else_is_sent_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append(pid) if signum else kill(pid, signum))
    look_now(tmp_path / "none.rec")
    kept_by(tmp_path / "foreign.rec", os.getpid(), foreign=True)
    look_now(tmp_path / "foreign.rec")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        kept_by(tmp_path / "ended.rec", ended.pid)
        eventually(lambda: ended.poll() is not None)
    look_now(tmp_path / "ended.rec")
    assert sent == []
    kept_by(tmp_path / "own.rec", os.getpid())
    look_now(tmp_path / "own.rec")
    assert sent == [os.getpid()]


def test_a_program_that_does_not_know_the_notice_ignores_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "input(); print('there')"], stdin=-1, stdout=-1, text=True) as program:
        program.send_signal(LOOK)
        assert program.communicate("\n", timeout=PATIENCE)[0] == "there\n"
