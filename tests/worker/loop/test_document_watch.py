"""A launch document that is written anew while its worker runs, and what a worker says it goes by."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleet.core.spec import BrokerSpec, PoolSpec, QueueSpec, RestartPolicy, TaskPolicy, WorkerSpec, live_digest
from fleet.replica.launch_document import LaunchDocument
from fleet.worker import logging_setup
from fleet.worker.lifecycle import State
from fleet.worker.loop.document_watch import DocumentWatch
from fleet.worker.loop.live_settings import LiveSettings
from fleet.worker.loop.rate_limits import RateLimits
from tests.worker.loop.test_consumer import Make, MemoryChannel, World, gate, make, ran

__all__ = ["make"]

BROKER = BrokerSpec("memory://")


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


class Channel(MemoryChannel):
    """Remembers which queues it was told to consume."""

    def consume(self, queues: Any) -> None:
        self.consumed = [queue.name for queue in queues]


class Document:
    """The launch document of a world's worker."""

    def __init__(self, world: World, folder: Path) -> None:
        self.path = folder / "g.0.json"
        self.spec = replace(world.parts.options.spec, broker=BROKER)
        self.settings: LiveSettings = world.parts.settings
        self.live = DocumentWatch(self.path, "d", self.settings)

    def write(self, spec: WorkerSpec, *, digest: str = "d") -> None:
        document = LaunchDocument(self.path, spec.fleet, "g.0", digest, spec, secrets={})
        self.write_text(document.to_bytes().decode())

    def write_text(self, text: str) -> None:
        fresh = self.path.with_suffix(".tmp")
        fresh.write_text(text)
        os.replace(fresh, self.path)

    def look(self) -> None:
        self.live.look(0.0)


Begin = Callable[..., tuple[World, Document]]


@pytest.fixture
def begin(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    monkeypatch.setattr("tests.worker.loop.test_consumer.MemoryChannel", Channel)

    def begun(pool: str = "threads", slots: int = 2, **policy: Any) -> tuple[World, Document]:
        world = make(pool, slots, **policy)
        world.until(lambda: world.parts.life.state is State.READY)
        return world, Document(world, tmp_path)

    return begun


def test_everything_that_can_change_in_place_is_taken_up(begin: Begin) -> None:
    world, document = begin()
    settings = {
        "queues": (QueueSpec("x"), QueueSpec("y", 3)),
        "log_level": "ERROR",
        "restart": RestartPolicy(max_crashes=2),
    }
    task = TaskPolicy(7.0, acks="early", prefetch=9, max_attempts=2, rate_limits=(("note", "1/h"),))
    wanted = replace(document.spec, pool=PoolSpec("threads", 5), task=task, **settings)  # type: ignore[arg-type]

    document.write(wanted)
    document.look()

    assert world.pool.limit == 5
    assert world.channel.consumed == ["x", "y"]
    assert list(world.parts.settings.queue_names()) == ["y", "x"]
    assert world.parts.admission.policy_of_manifest == task
    assert logging.getLogger().level == logging.ERROR
    assert isinstance(world.parts.rate_limits, RateLimits)
    assert len(world.parts.rate_limits) == 1
    assert (world.view().slots, world.view().live) == (5, live_digest(replace(wanted, broker=BrokerSpec())))


def test_a_worker_says_from_the_beginning_what_it_goes_by(begin: Begin) -> None:
    world, _ = begin()

    assert world.view().live == live_digest(world.parts.options.spec)


def test_what_cannot_be_read_or_needs_a_restart_is_ignored_and_told_once(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    world, document = begin()
    before = world.view().live
    for write in (
        partial(document.write_text, "{half"),
        partial(document.write, replace(document.spec, pool=PoolSpec("threads", 9)), digest="other"),
        document.path.unlink,
    ):
        caplog.clear()
        write()
        for _ in range(3):
            document.look()
        assert len(caplog.records) == (1 if document.path.exists() else 0)
    assert (world.pool.limit, world.view().live) == (2, before)

    document.write(replace(document.spec, pool=PoolSpec("threads", 9)))
    document.look()

    assert world.pool.limit == 9


def test_a_pool_that_cannot_follow_is_told_and_the_rest_is_taken_up(
    begin: Begin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pools.errors import PoolError

    world, document = begin()

    def refuse(_count: int) -> None:
        raise PoolError("no more threads")

    monkeypatch.setattr(world.pool, "grow", refuse)
    wanted = replace(document.spec, pool=PoolSpec("threads", 9), queues=(QueueSpec("x"),))
    document.write(wanted)
    document.look()

    assert "no more threads" in caplog.text
    assert world.channel.consumed == ["x"]
    assert world.view().live not in ("", live_digest(replace(wanted, broker=BrokerSpec())))


def test_what_was_changed_by_hand_shows_and_is_undone_when_the_document_is_written_again(begin: Begin) -> None:
    world, document = begin()
    document.write(document.spec)
    document.look()
    settled = world.view().live

    document.settings.set_slots(7)
    document.settings.set_queues([QueueSpec("other")])
    by_hand = world.view()
    document.look()
    assert (by_hand.slots, world.view().slots) == (7, 7), "nobody asked for the settings of the document"
    assert by_hand.live != settled

    document.write(document.spec)
    document.look()
    assert (world.view().slots, world.view().live) == (2, settled)
    assert world.channel.consumed == ["q"]


def test_messages_of_a_queue_that_is_left_go_back_started_ones_stay(begin: Begin) -> None:
    world, document = begin(slots=1, prefetch=3)
    channel = world.channel
    for number in range(2):
        channel.put("waits", number)
    channel.put("note", 2, eta=datetime.now(UTC) + timedelta(hours=1))
    world.until(lambda: len(channel.held) == 3 and world.parts.inflight.delayed_count and world.parts.inflight.waiting)

    with channel.lock:
        document.write(replace(document.spec, queues=(QueueSpec("x"),)))
        document.look()

    assert len(channel.held) == 1
    assert [delivery.tag for delivery in channel.queue] == ["2", "3"]
    channel.queue.clear()
    gate.set()
    world.until(lambda: channel.acked == ["1"])
    assert ran == [0]


def test_fewer_slots_let_what_runs_finish(begin: Begin) -> None:
    world, document = begin(slots=3)
    for number in range(4):
        world.channel.put("waits", number)
    world.until(lambda: world.view().busy == 3)

    document.write(replace(document.spec, pool=PoolSpec("threads", 1)))
    with world.channel.lock:
        document.look()

    assert (world.view().slots, world.view().busy) == (1, 3)
    gate.set()
    world.until(lambda: len(world.channel.acked) == 4)
    assert sorted(ran) == [0, 1, 2, 3]


def test_a_rate_that_leaves_the_manifest_is_the_apps_own_again(begin: Begin) -> None:
    world, document = begin()
    asked: list[tuple[str, object]] = []
    document.settings.set_rate_limits({"note": "5/s"})
    limits = world.parts.rate_limits
    assert isinstance(limits, RateLimits)
    limits.limit = lambda task_name, rate: asked.append((task_name, rate))  # type: ignore[method-assign]

    for rates in ((("note", "1/s"), ("early", "2/s")), (("note", "1/s"),), ()):
        document.settings.set_policy(replace(document.spec.task, rate_limits=rates))

    assert asked == [("early", 2.0), ("note", 1.0), ("early", None), ("note", 5.0)]


@pytest.fixture
def log_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logging_setup.set_up("g.0", level="INFO")
    [handler] = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    yield
    handler.stream.close()


@pytest.mark.usefixtures("log_of_a_worker")
def test_a_slot_hears_of_another_log_level() -> None:
    logging_setup.set_level("DEBUG")
    logging.getLogger().setLevel("INFO")  # as in a child, which has its own copy

    logging_setup.apply_level()

    assert logging.getLogger().level == logging.DEBUG


@pytest.mark.usefixtures("log_of_a_worker")
def test_a_level_that_a_task_sets_itself_is_left_alone() -> None:
    logging.getLogger().setLevel("CRITICAL")

    logging_setup.apply_level()

    assert logging.getLogger().level == logging.CRITICAL
