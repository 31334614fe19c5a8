"""Results that slots leave to the loop: stored before the acknowledgement, by a slot where the loop cannot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fleet.worker.apps.registry import RegistryApplication
from fleet.worker.loop import starting
from fleet.worker.task.call import Call, EncodedResult, Outcome
from tests.conftest import PATIENCE
from tests.worker.loop import test_consumer
from tests.worker.loop.test_consumer import Make, World, gate, make, note, waits
from tests.worker.loop.test_look_ahead import attend_until, warm

__all__ = ["make"]

Log = list[tuple[str, str]]


class Stored:
    """The loop's way to the backend, which can be out of order."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.works = True
        self.batches: list[int] = []

    def store(self, results: Sequence[EncodedResult]) -> Sequence[bool]:
        self._log += [("loop" if self.works else "failed", str(one.key)) for one in results]
        self.batches.append(len(results))
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
        outcome = super().run(call)
        return outcome._replace(unstored=EncodedResult(call.id, "", 0)) if outcome.state == "success" else outcome

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
    monkeypatch.setattr(starting, "INLINE_SECONDS", PATIENCE)  # a batch ends with its tasks, however slow the machine

    def begun(pool: str = "threads", slots: int = 2, **policy: Any) -> tuple[World, Stored, Log]:
        log: Log = []
        store = Stored(log)
        with monkeypatch.context() as patch:
            patch.setattr(test_consumer, "RegistryApplication", lambda tasks: Storing(tasks, log=log, store=store))
            world = make(pool, slots, **policy)
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


# ---- where tasks run in the main thread


def quick(world: World, log: Log, store: Stored) -> None:
    """A worker that takes tasks ahead."""
    warm(world)
    log.clear()
    store.batches.clear()


def put(world: World, *names: str) -> list[str]:
    return [world.channel.put(name, number) for number, name in enumerate(names)]


def order_of(log: Log, ids: Sequence[str]) -> list[tuple[str, int]]:
    return [(what, ids.index(one)) for what, one in log]


def test_results_of_tasks_that_follow_each_other_are_stored_together_before_any_is_acknowledged(begin: Begin) -> None:
    world, store, log = begin("solo", 1, look_ahead_seconds=PATIENCE)
    quick(world, log, store)
    ids = put(world, *["note"] * 9)
    world.until(lambda: len(world.channel.acked) == 9)
    assert max(store.batches) > 4
    assert sum(store.batches) == 9
    for one in ids:
        assert log.index(("loop", one)) < log.index(("ack", one))
    assert not world.channel.noted


def test_what_is_over_and_not_stored_is_noted_and_its_slot_in_the_record_is_free(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store, log = begin("solo", 1, look_ahead_seconds=PATIENCE)
    quick(world, log, store)
    seen: list[tuple[list[EncodedResult], list[str]]] = []

    def look(number: int) -> None:
        noted = [EncodedResult.unpacked(one) for one in world.channel.noted.values()]
        seen.append((noted, [task.task_id for task in world.view().tasks]))

    monkeypatch.setattr(note, "function", look)
    ids = put(world, *["note"] * 4)
    world.until(lambda: len(world.channel.acked) == 4)
    assert [running for _, running in seen] == [[one] for one in ids]
    kept = store.batches[-1] - 1  # the last one finds all others of its batch
    assert kept > 0
    assert seen[-1][0] == [EncodedResult(one.encode(), b"", 0) for one in ids[3 - kept : 3]]
    assert not world.channel.noted


def test_a_task_of_unknown_length_finds_what_is_over_stored_and_acknowledged(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store, log = begin("solo", 1, look_ahead_seconds=PATIENCE)
    quick(world, log, store)
    before: list[list[tuple[str, int]]] = []
    monkeypatch.setattr(waits, "function", lambda number, **_: before.append(order_of(log, ids)))
    ids = put(world, "note", "note", "waits")
    world.until(lambda: len(world.channel.acked) == 3)
    assert sorted(before[0]) == [("ack", 0), ("ack", 1), ("loop", 0), ("loop", 1)]


def test_what_is_over_does_not_wait_for_a_quick_task_that_turns_out_long(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store, log = begin("solo", 1, look_ahead_seconds=0.05, look_ahead_most=8)
    quick(world, log, store)
    before: list[list[str]] = []

    def long(number: int) -> None:
        if number == 2:
            attend_until(world, lambda: len(world.channel.acked) == 2)
            before.append(list(world.channel.acked))

    monkeypatch.setattr(note, "function", long)
    ids = put(world, *["note"] * 4)
    world.until(lambda: len(world.channel.acked) == 4)
    assert len(before[0]) == 2
    assert order_of(log, ids)[:1] == [("loop", 0)]


def test_a_result_that_has_no_room_is_stored_at_once_with_those_before_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store, log = begin("solo", 1, look_ahead_seconds=PATIENCE)
    quick(world, log, store)
    note_end = world.channel.note_end
    monkeypatch.setattr(world.channel, "note_end", lambda *end: len(world.channel.noted) < 2 and note_end(*end))
    ids = put(world, *["note"] * 9)
    world.until(lambda: len(world.channel.acked) == 9)
    assert max(store.batches) == 3
    assert sorted(log) == sorted([("loop", one) for one in ids] + [("ack", one) for one in ids])


def test_a_broken_task_among_them_is_settled_at_once_and_the_others_are_stored(begin: Begin) -> None:
    world, store, log = begin("solo", 1, look_ahead_seconds=PATIENCE)
    quick(world, log, store)
    ids = put(world, "note", "note")
    world.channel.put("broken")
    ids += put(world, "note")
    world.until(lambda: len(world.channel.acked) >= 4 and world.channel.queue == deque() and not world.channel.held)
    assert {one for what, one in log if what == "loop"} >= set(ids)


def test_main_thread_stores_one_by_one_what_the_loop_could_not_store_together(begin: Begin) -> None:
    world, store, log = begin("solo", 1, look_ahead_seconds=PATIENCE)
    quick(world, log, store)
    store.works = False
    ids = put(world, *["note"] * 6)
    world.until(lambda: len(world.channel.acked) == 6)
    for one in ids:
        assert [what for what, which in log if which == one] == ["failed", "slot", "ack"]
    assert not world.channel.noted


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("threads", 2), ("asyncio", 2)])
def test_what_was_acknowledged_early_is_noted_until_its_result_is_stored(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, pool: str, slots: int
) -> None:
    """Its message does not come again when the process is killed before that."""
    world, store, log = begin(pool, slots, acks="early")
    noted: list[int] = []
    storing = store.store

    def look(results: Sequence[EncodedResult]) -> Sequence[bool]:
        noted.append(len(results) - len(world.channel.noted))
        return storing(results)

    monkeypatch.setattr(store, "store", look)
    ids = put(world, *["note"] * 5)
    world.until(lambda: len([what for what, _ in log if what == "loop"]) == 5)
    assert set(noted) == {0}
    assert not world.channel.noted
    assert len(ids) == 5


def test_what_the_process_before_left_is_stored_whatever_it_takes(begin: Begin) -> None:
    world, store, log = begin("solo", 1)
    packed = [EncodedResult(b"one", b"1", 60).packed()]
    assert world.parts.unstored.store_left(packed)
    store.works = False
    assert world.parts.unstored.store_left(packed)
    world.consumer._application.slot_error = OSError("down")  # type: ignore[attr-defined]
    assert not world.parts.unstored.store_left(packed)
    assert not world.parts.unstored.store_left([b"junk"])
    assert [what for what, _ in log] == ["loop", "failed", "slot", "failed", "slot"]
