"""Results that slots leave to the loop: stored before the acknowledgement, by a slot where the loop cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fleet.worker.apps.registry import RegistryApplication
from fleet.worker.task.call import Call, EncodedResult, Outcome
from tests.worker.loop import test_consumer
from tests.worker.loop.test_consumer import Make, World, gate, make

__all__ = ["make"]

Log = list[tuple[str, str]]


class Stored:
    """The loop's way to the backend, which can be out of order."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.works = True

    def store(self, results: Sequence[EncodedResult]) -> Sequence[bool]:
        self._log += [("loop" if self.works else "failed", str(one.key)) for one in results]
        return [self.works] * len(results)

    def fds(self) -> Sequence[int]:
        return []


class Storing(RegistryApplication):
    """An app whose tasks leave their results to the loop."""

    records_ends = True

    def __init__(self, tasks: Any, *, log: Log, store: Stored) -> None:
        super().__init__(tasks)
        self._log, self._stored = log, store
        self.slot_error: Exception | None = None

    def result_store(self) -> Any:
        return self._stored

    def run(self, call: Call) -> Outcome:
        return super().run(call)._replace(unstored=EncodedResult(call.id, "", 0))

    def store_result(self, result: EncodedResult) -> None:
        self._log.append(("slot", str(result.key)))
        if self.slot_error is not None:
            raise self.slot_error

    def after_end(self, call: Call, ending: Any, detail: str) -> Outcome:
        return Outcome("failure", error=detail)


Begin = Callable[..., tuple[World, Stored, Log]]


@pytest.fixture
def begin(make: Make, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """A worker that stores what it can; its log tells of results and acknowledgements in order."""

    def begun(**policy: Any) -> tuple[World, Stored, Log]:
        log: Log = []
        store = Stored(log)
        with monkeypatch.context() as patch:
            patch.setattr(test_consumer, "RegistryApplication", lambda tasks: Storing(tasks, log=log, store=store))
            world = make("threads", 2, **policy)
        ack = world.channel.ack

        def noted(deliveries: Any) -> None:
            log.extend(("ack", delivery.headers["id"]) for delivery in deliveries)
            ack(deliveries)

        world.channel.ack = noted  # type: ignore[method-assign]
        return world, store, log

    return begun


def test_the_loop_stores_a_result_before_its_message_is_acknowledged(begin: Begin) -> None:
    world, _, log = begin()
    ids = [world.channel.put("note", number) for number in range(4)]
    world.until(lambda: len(world.channel.acked) == 4)
    assert sorted(log) == sorted([("loop", one) for one in ids] + [("ack", one) for one in ids])
    for one in ids:
        assert log.index(("loop", one)) < log.index(("ack", one))


def test_a_slot_stores_what_the_loop_could_not(begin: Begin) -> None:
    world, store, log = begin()
    store.works = False
    one = world.channel.put("note", 1)
    world.until(lambda: world.view().processed == 1)
    assert log == [("failed", one), ("slot", one), ("ack", one)]
    assert not world.view().failed


def test_a_result_that_nobody_can_store_makes_a_failed_task(begin: Begin) -> None:
    world, store, log = begin()
    store.works = False
    world.consumer._application.slot_error = OSError("down")  # type: ignore[attr-defined]
    one = world.channel.put("note", 1)
    world.until(lambda: world.view().processed == 1)
    assert log[:2] == [("failed", one), ("slot", one)]
    assert world.view().failed == 1


def over_and_not_stored(world: World, count: int) -> list[str]:
    """Ids of tasks that are over, whose results the loop cannot store and no slot does."""
    ids = [world.channel.put("waits", number) for number in range(count)]
    world.until(lambda: len(world.parts.inflight.running) == count)
    world.parts.starting.start = lambda: False  # type: ignore[method-assign]
    gate.set()
    world.until(lambda: len(world.parts.inflight.unreported) == count)
    return ids


def test_what_was_not_stored_when_a_worker_is_cut_comes_again(begin: Begin) -> None:
    world, store, log = begin()
    store.works = False
    ids = over_and_not_stored(world, 2)
    world.parts.handing_back.unreported()
    assert sorted(delivery.headers["id"] for delivery in world.channel.queue) == sorted(ids)
    assert sorted(log) == sorted(("failed", one) for one in ids)


def test_what_was_acknowledged_early_is_stored_when_a_worker_is_cut(begin: Begin) -> None:
    world, store, log = begin(acks="early")
    store.works = False
    [one] = over_and_not_stored(world, 1)
    world.parts.handing_back.unreported()
    assert log == [("ack", one), ("failed", one), ("slot", one)]
    assert not world.channel.queue
