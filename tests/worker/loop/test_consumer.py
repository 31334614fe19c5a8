"""The loop that feeds the pool, turn by turn, on a channel in memory that can be cut at any moment."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet import Tasks
from fleet.broker.channels.base import TEND_SECONDS, ChannelLost
from fleet.broker.delivery import Delivery
from fleet.broker.message import build
from fleet.core.spec import PoolSpec, QueueSpec, TaskPolicy, WorkerSpec
from fleet.replica import record
from fleet.replica.record import Record, set_hold
from fleet.worker import execution
from fleet.worker.apps.registry import RegistryApplication
from fleet.worker.lifecycle import Event, State
from fleet.worker.loop.consumer import Consumer
from fleet.worker.options import WorkerOptions
from fleet.worker.os_signals import SignalBox
from pools import EventLoop, get_pool
from tests.conftest import PATIENCE

tasks = Tasks("c")
ran: list[Any] = []
gate = threading.Event()


@tasks.task(name="note")
def note(number: int) -> None:
    ran.append(number)


@tasks.task(name="early", acks="early")
def early(number: int) -> None:
    ran.append(number)


@tasks.task(name="broken", max_retries=1, jitter=False, backoff_seconds=0)
def broken() -> None:
    ran.append("broken")
    raise ValueError("as asked")


acked: list[str] = []
behind: list[int] = []
"""How many tasks were over and not settled when each of them was."""


@tasks.task(name="counts")
def counts(number: int) -> None:
    ran.append(number)
    behind.append(len(ran) - len(acked))


@tasks.task(name="waits", max_retries=1, jitter=False, backoff_seconds=0)
def waits(number: int, *, fail: bool = False) -> None:
    assert gate.wait(PATIENCE)
    ran.append(number)
    if fail:
        raise ValueError("after the gate")


@tasks.task(name="fails behind the gate", max_retries=1, jitter=False, backoff_seconds=0)
def fails_behind_the_gate() -> None:
    """The gate opens for one try."""
    assert gate.wait(PATIENCE)
    gate.clear()
    raise ValueError("after the gate")


class MemoryChannel:
    """A queue in memory. ``again``: after a cut, what was held is delivered again, as RabbitMQ does."""

    def __init__(self, *, again: bool = False, delays: bool = False) -> None:
        self.lock = threading.RLock()
        self.poll_seconds: float | None = 0.01
        self.tend_at = 0.0
        self.keeps_acks = True
        self.rest_seconds = TEND_SECONDS
        self.pushed = 0
        self.rested = False
        self.queue: deque[Delivery] = deque()
        self.noted: dict[str, bytes] = {}
        self.ends = self
        self.held: dict[str, Delivery] = {}
        self.acked: list[str] = []
        self.sent: list[tuple[str, Mapping[str, Any]]] = []
        self.delayed: list[str] = []
        self.cut = False
        self.again = again
        self.delays = delays
        self.number = 0
        self.asked: list[int] = []
        self.consumed: list[str] = []

    def put(self, name: str, *args: Any, redelivered: bool = False, attempts: int = 0, **how: Any) -> str:
        built = build(name, args, how.pop("kwargs", None), **how)
        self.number += 1
        delivery = Delivery(
            str(self.number),
            "q",
            built.body,
            built.headers,
            built.properties,
            redelivered=redelivered,
            attempts=attempts,
        )
        self.queue.append(delivery)
        return str(built.headers["id"])

    def _speak(self) -> None:
        if self.cut:
            raise ChannelLost("cut")

    def open(self) -> None:
        self._speak()

    def lose(self) -> None:
        """The line breaks, now."""
        self.cut = True
        if self.again:
            for delivery in reversed(self.held.values()):
                self.number += 1
                self.queue.appendleft(replace(delivery, tag=str(self.number), redelivered=True))
            self.held.clear()

    def consume(self, queues: Sequence[QueueSpec]) -> None:
        self.consumed = [spec.name for spec in queues]
        self._speak()

    def rest_is_over(self) -> bool:
        self._speak()
        return self.rested

    def backlog(self) -> int | None:
        self._speak()
        return len(self.queue)

    def fetch(self, count: int, ahead: int = 0) -> list[Delivery]:
        self._speak()
        self.asked.append(count)
        taken = [self.queue.popleft() for _ in range(min(count + ahead, len(self.queue)))]
        self.held.update({delivery.tag: delivery for delivery in taken})
        return taken

    def wait_fds(self) -> Sequence[int]:
        return ()

    def holds(self, delivery: Delivery) -> bool:
        return delivery.tag in self.held

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._speak()
        for delivery in deliveries:
            if self.held.pop(delivery.tag, None):
                self.acked.append(delivery.tag)

    def note_end(self, delivery: Delivery, result: bytes) -> bool:
        """As on Redis, where there is always room."""
        self.noted[delivery.tag] = result
        return True

    def forget_ends(self) -> None:
        self.noted.clear()

    def give_back(self, deliveries: Sequence[Delivery], *, unmarked: bool = False) -> None:
        self._speak()
        for delivery in reversed(deliveries):
            if self.held.pop(delivery.tag, None):
                self.queue.appendleft(delivery)

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        self.ack(deliveries)

    def keeps_rejected(self, queue: str) -> bool:
        return False

    def delay(self, delivery: Delivery, *, due: float) -> bool:
        self._speak()
        if self.delays:
            self.delayed.append(delivery.tag)
            self.held.pop(delivery.tag)
        return self.delays

    def publish(self, queue: str, body: bytes | str, *, headers: Mapping[str, Any], acks: Any = (), **_: Any) -> None:
        self._speak()
        self.sent.append((queue, headers))
        self.ack(acks)
        if queue == "q":
            self.number += 1
            self.queue.append(Delivery(str(self.number), "q", body, headers))

    def flush(self) -> None:
        self._speak()

    def tend(self) -> None:
        self._speak()

    def close(self) -> None:
        self.queue.extendleft(reversed(self.held.values()))
        self.held.clear()


class World:
    """A consumer that is driven by hand."""

    def __init__(self, folder: Path, channel: MemoryChannel, pool: str, slots: int, policy: TaskPolicy) -> None:
        spec = WorkerSpec(
            kind="worker",
            fleet="f",
            group="g",
            pool=PoolSpec(pool, slots),
            queues=(QueueSpec("q"),),
            task=policy,
            drain_timeout_seconds=30,
        )
        self.channel = channel
        self.loop = EventLoop()
        self.pool = get_pool(pool, slots)
        self.pool.register_with_event_loop(self.loop)
        self.record_path = folder / "g.0.rec"
        self.record = Record(self.record_path, digest="d", slots=slots)
        application = RegistryApplication(tasks)
        execution.bind(application)
        self.box = SignalBox()
        self.consumer = Consumer(
            WorkerOptions(spec, "g.0", "d", "memory://"),
            application,
            self.pool,
            channel,
            record=self.record,
            box=self.box,
            loop=self.loop,
        )
        self.parts = self.consumer.parts
        self.loop.add_reader(self.box.fileno(), self.consumer.handle_signals)

    def until(self, check: Callable[[], Any], *, within: float = PATIENCE) -> None:
        """Turn the loop until something holds."""
        end = time.monotonic() + within
        with self.channel.lock:
            while not check():
                assert time.monotonic() < end, f"did not happen; ran {ran}, log of asks {self.channel.asked[-5:]}"
                self.consumer.turn()

    def view(self) -> record.RecordView:
        found = record.read(self.record_path)
        assert found is not None
        return found

    def close(self) -> None:
        gate.set()
        self.pool.terminate()
        self.loop.close()
        self.box.close()
        self.record.close()


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    ran.clear()
    gate.clear()
    made: list[World] = []

    def world(pool: str = "solo", slots: int = 1, *, again: bool = False, delays: bool = False, **policy: Any) -> World:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        channel = MemoryChannel(again=again, delays=delays)
        made.append(World(folder, channel, pool, slots, TaskPolicy(**policy)))
        return made[-1]

    yield world
    for each in made:
        each.close()


def test_it_asks_for_as_many_as_there_are_free_slots(make: Make) -> None:
    world = make("threads", 3)
    for number in range(5):
        world.channel.put("waits", number)
    world.until(lambda: world.parts.life.state is State.READY)
    world.until(lambda: len(world.channel.held) == 3)
    assert world.channel.asked[0] == 3
    world.until(lambda: world.channel.asked[-1] == 0)
    assert len(world.channel.queue) == 2
    gate.set()
    world.until(lambda: len(world.channel.acked) == 5)
    assert sorted(ran) == [0, 1, 2, 3, 4]


def test_prefetch_is_opt_in_and_never_below_the_slots(make: Make) -> None:
    world = make("threads", 2, prefetch=5)
    for number in range(9):
        world.channel.put("waits", number)
    world.until(lambda: len(world.channel.held) == 5)
    narrow = make("threads", 2, prefetch=1)
    for number in range(9):
        narrow.channel.put("waits", number)
    narrow.until(lambda: len(narrow.channel.held) == 2)


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_what_a_killed_worker_would_repeat_is_never_more_than_its_slots(
    make: Make, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    """A slot takes the next task when its last one is settled, not when it is over."""
    behind.clear()
    world = make(pool, 2, prefetch=300)
    monkeypatch.setattr(sys.modules[__name__], "acked", world.channel.acked)
    for number in range(300):
        world.channel.put("counts", number)
    world.until(lambda: len(world.channel.acked) == 300)
    assert max(behind) <= 2


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("threads", 1), ("asyncio", 1)])
def test_with_a_prefetch_each_task_is_counted_and_acknowledged_before_the_next_begins(
    make: Make, monkeypatch: pytest.MonkeyPatch, pool: str, slots: int
) -> None:
    """Each has its slot in the record, too."""
    world = make(pool, slots, prefetch=4)
    seen: list[tuple[list[str], int, int]] = []

    def look(number: int) -> None:
        view = world.view()
        seen.append(([task.task_id for task in view.tasks], view.processed, len(world.channel.acked)))

    monkeypatch.setattr(note, "function", look)
    ids = [world.channel.put("note", number) for number in range(8)]
    world.until(lambda: len(world.channel.acked) == 8)
    assert max(world.channel.asked) == 4
    assert seen == [([one], number, number) for number, one in enumerate(ids)]


def test_a_late_task_is_acknowledged_after_and_an_early_one_before(make: Make) -> None:
    world = make("threads", 2)
    world.channel.put("waits", 1)
    world.until(lambda: len(world.parts.inflight.running) == 1)
    assert not world.channel.acked
    world.channel.put("early", 2)
    world.until(lambda: world.channel.acked == ["2"])
    gate.set()
    world.until(lambda: world.channel.acked == ["2", "1"])


def test_the_manifest_has_the_last_word_on_acknowledgement(make: Make) -> None:
    world = make("threads", 1, acks="early")
    world.channel.put("waits", 1)
    world.until(lambda: world.channel.acked == ["1"])
    assert not ran


def test_a_failing_task_is_sent_again_and_then_buried(make: Make) -> None:
    world = make()
    world.channel.put("broken")
    world.until(lambda: len(world.channel.sent) == 2)
    [again, dead] = world.channel.sent
    assert (again[0], again[1]["retries"]) == ("q", 1)
    assert (dead[0], dead[1]["x-fleet-error"], dead[1]["x-fleet-retries"]) == ("q.dead", "ValueError: as asked", 1)
    world.parts.record.beat()
    assert (world.view().processed, world.view().failed, world.view().retried) == (1, 1, 1)


def test_what_it_holds_is_published_while_it_waits_for_a_slot(make: Make) -> None:
    world = make("threads", 2, prefetch=5)
    for number in range(6):
        world.channel.put("waits", number)
    world.until(lambda: world.view().reserved == 5)
    assert (world.view().busy, world.view().waiting, world.view().processed) == (2, 3, 0)
    world.channel.pushed = 4
    world.until(lambda: world.view().reserved == 9)
    world.channel.pushed = 0
    gate.set()
    world.until(lambda: world.view().processed == 6)
    world.until(lambda: world.view().reserved == 0)
    assert world.view().busy_seconds > 0


def test_what_waits_for_its_date_or_its_turn_does_not_wait_for_a_slot(make: Make) -> None:
    world = make("threads", 2)
    world.parts.settings.set_rate_limit("early", "1/h")
    world.channel.put("note", 1, countdown=3600)
    world.channel.put("early", 1)
    world.channel.put("early", 2)
    world.until(lambda: ran == [1] and world.parts.inflight.delayed_count == 2)
    world.until(lambda: world.view().busy == 0)
    assert world.view().waiting == 0


def test_a_retry_is_no_completion_but_its_time_was_spent(make: Make) -> None:
    world = make("threads", 1)
    world.channel.put("fails behind the gate")
    world.until(lambda: world.view().busy == 1)
    gate.set()
    world.until(lambda: world.view().retried == 1)
    spent = world.view().busy_seconds
    assert spent > 0
    assert world.view().processed == 0
    gate.set()
    world.until(lambda: world.view().processed == 1)
    assert (world.view().failed, world.view().busy_seconds > spent) == (1, True)


def test_a_solo_worker_with_work_ahead_publishes_each_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    seen = []
    monkeypatch.setattr(note, "function", lambda number: seen.append(world.view().processed))
    for number in range(4):
        world.channel.put("note", number)
    world.until(lambda: len(world.channel.acked) == 4)
    assert seen == [0, 1, 2, 3]


def test_with_messages_to_hold_each_end_is_settled_before_the_next_begins(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(prefetch=4)
    seen = []

    def look(number: int) -> None:
        world.record.beat()
        view = world.view()
        seen.append((view.processed, len(world.channel.acked), [task.task_name for task in view.tasks]))

    monkeypatch.setattr(note, "function", look)
    for number in range(4):
        world.channel.put("note", number)
    world.until(lambda: len(world.channel.acked) == 4)
    assert seen == [(0, 0, ["note"]), (1, 1, ["note"]), (2, 2, ["note"]), (3, 3, ["note"])]


def test_revoked_and_expired_tasks_do_not_run(make: Make) -> None:
    world = make()
    revoked = world.channel.put("note", 1)
    world.channel.put("note", 2, expires=1, now=time.time() - 10)
    world.channel.put("note", 3)
    world.parts.revoked.add([revoked])
    world.until(lambda: len(world.channel.acked) == 3)
    assert ran == [3]


def test_a_task_with_a_date_waits_here_where_the_broker_cannot_keep_it(make: Make) -> None:
    world = make()
    later = time.time() + 1.0
    world.channel.put("note", 1, eta=datetime.fromtimestamp(later, UTC))
    world.until(lambda: world.parts.inflight.delayed_count == 1 or ran)
    world.until(lambda: ran == [1])
    assert time.time() >= later


def test_a_task_with_a_date_stays_with_the_broker_that_can_keep_it(make: Make) -> None:
    world = make(delays=True)
    world.channel.put("note", 1, countdown=60)
    world.until(lambda: world.channel.delayed == ["1"])
    assert not world.parts.inflight.delayed_count
    assert not world.channel.held


def test_a_task_that_crashed_too_often_is_buried_unrun(make: Make) -> None:
    world = make(max_attempts=3)
    world.channel.put("note", 1, attempts=3, redelivered=True)
    world.until(lambda: len(world.channel.sent) == 1)
    assert "3 times" in world.channel.sent[0][1]["x-fleet-error"]
    assert not ran


def test_term_hands_back_what_has_not_started_and_finishes_what_runs(make: Make) -> None:
    world = make("threads", 1, prefetch=4)
    for number in range(4):
        world.channel.put("waits", number)
    world.until(lambda: len(world.channel.held) == 4)
    world.box.post(signal.SIGTERM)
    world.until(lambda: world.parts.life.state is State.DRAINING)
    assert [delivery.tag for delivery in world.channel.queue] == ["2", "3", "4"]
    assert "1 task left" in world.view().note
    gate.set()
    world.until(lambda: world.parts.life.stopped)
    assert ran == [0]
    assert world.channel.acked == ["1"]


def test_a_second_term_gives_running_tasks_back(make: Make) -> None:
    world = make("threads", 1)
    world.channel.put("waits", 1)
    world.until(lambda: len(world.channel.held) == 1)
    world.box.post(signal.SIGTERM)
    world.box.post(signal.SIGTERM)
    world.until(lambda: world.parts.life.stopped)
    assert [delivery.tag for delivery in world.channel.queue] == ["1"]
    assert not world.channel.acked


def test_hold_and_resume(make: Make) -> None:
    world = make("threads", 1, prefetch=3)
    for number in range(3):
        world.channel.put("waits", number)
    world.until(lambda: len(world.channel.held) == 3)
    set_hold(world.record_path, on=True)
    world.until(lambda: world.parts.life.state is State.HELD)
    assert len(world.channel.queue) == 2
    gate.set()
    world.until(lambda: world.channel.acked == ["1"])
    assert world.view().state == "draining"
    set_hold(world.record_path, on=False)
    world.until(lambda: len(ran) == 3)


@pytest.mark.parametrize("again", [False, True])
def test_a_task_outlives_a_broken_line(make: Make, again: bool) -> None:
    """Both kinds of broker: one keeps what we hold, the other delivers it again."""
    world = make("threads", 1, again=again)
    world.channel.put("waits", 1)
    world.until(lambda: len(world.channel.held) == 1)
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    gate.set()
    world.until(lambda: ran == [1] and not world.parts.inflight.running)
    world.channel.cut = False
    world.until(lambda: len(world.channel.acked) == 1)
    world.channel.put("note", 2)
    world.until(lambda: ran == [1, 2])
    assert not world.channel.queue


@pytest.mark.parametrize("again", [False, True])
def test_a_retry_that_could_not_be_sent_is_sent_once(make: Make, again: bool) -> None:
    world = make("threads", 1, again=again)
    world.channel.put("waits", 1, kwargs={"fail": True})
    world.until(lambda: len(world.channel.held) == 1)
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    gate.set()
    world.until(lambda: ran == [1] and not world.parts.inflight.running)
    assert not world.channel.sent
    world.channel.cut = False
    world.until(lambda: len(world.channel.sent) == 2)
    assert [queue for queue, _ in world.channel.sent] == ["q", "q.dead"]
    assert ran == [1, 1]


def test_a_message_that_comes_again_while_its_task_runs_is_adopted(make: Make) -> None:
    world = make("threads", 2, again=True)
    world.channel.put("waits", 1)
    world.until(lambda: len(world.channel.held) == 1)
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    world.channel.cut = False
    world.until(lambda: list(world.channel.held) == ["2"])
    gate.set()
    world.until(lambda: world.channel.acked == ["2"])
    assert ran == [1]


def test_a_prefetched_task_is_not_run_after_a_broken_line(make: Make) -> None:
    world = make("threads", 1, again=True, prefetch=3)
    for number in range(3):
        world.channel.put("waits", number)
    world.until(lambda: len(world.channel.held) == 3)
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    assert not world.parts.inflight.waiting
    world.channel.cut = False
    gate.set()
    world.until(lambda: sorted(ran) == [0, 1, 2] and len(world.channel.acked) == 3)


def test_junk_is_buried(make: Make) -> None:
    world = make()
    world.channel.queue.append(Delivery("9", "q", b"\x00\xff", {}, {}, "application/octet-stream"))
    world.until(lambda: len(world.channel.sent) == 1)
    assert world.channel.sent[0][0] == "q.dead"
    assert world.channel.acked == ["9"]


def test_a_hold_from_before_the_start_is_kept(make: Make, tmp_path: Path) -> None:
    world = make()
    set_hold(world.record_path, on=True)
    world.until(lambda: world.parts.connection.up)
    world.channel.put("note", 1)
    world.until(lambda: world.parts.life.state is State.HELD)
    assert not ran
    world.consumer.on_event(Event.RESUME)
    set_hold(world.record_path, on=False)
    world.until(lambda: ran == [1])


def test_changed_queues_reach_the_channel_with_and_without_a_line(make: Make) -> None:
    world = make()
    world.until(lambda: world.parts.connection.up)
    world.parts.settings.set_queues([QueueSpec("q"), QueueSpec("r")])
    assert world.channel.consumed == ["q", "r"]
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    world.parts.settings.set_queues([QueueSpec("r")])
    assert world.channel.consumed == ["r"]
    assert list(world.parts.settings.queue_names()) == ["r"]


def test_an_end_that_is_owed_is_not_forgotten_when_the_line_breaks_twice(make: Make) -> None:
    world = make("threads", 1, again=True)
    world.channel.put("waits", 1, kwargs={"fail": True})
    world.until(lambda: len(world.channel.held) == 1)
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    gate.set()
    world.until(lambda: ran == [1] and not world.parts.inflight.running)
    kept, world.channel.queue = world.channel.queue, deque()  # the broker does not deliver it again just yet
    world.channel.cut = False
    world.until(lambda: world.parts.connection.up)
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    world.channel.queue = kept
    world.channel.cut = False
    world.until(lambda: len(world.channel.sent) == 2)
    assert [queue for queue, _ in world.channel.sent] == ["q", "q.dead"]
    assert ran == [1, 1]


def test_an_early_task_that_ended_while_the_line_was_down_does_not_run_again(make: Make) -> None:
    world = make("threads", 1, again=True, acks="early")
    world.channel.put("waits", 1)
    message = world.channel.queue[0]
    world.until(lambda: world.channel.acked == ["1"])
    world.channel.lose()
    world.until(lambda: not world.parts.connection.up)
    gate.set()
    world.until(lambda: ran == [1] and not world.parts.inflight.running)
    world.channel.queue.append(replace(message, tag="9", redelivered=True))  # the acknowledgement was lost on its way
    world.channel.cut = False
    world.until(lambda: world.channel.acked == ["1", "9"])
    assert ran == [1]


def test_what_came_together_with_a_task_that_could_not_be_put_off_is_not_stranded(make: Make) -> None:
    world = make("threads", 3, delays=True)
    world.channel.put("note", 1, countdown=3600)
    world.channel.put("note", 2)
    world.channel.put("note", 3)
    put_off = world.channel.delay

    def breaks(delivery: Delivery, *, due: float) -> bool:
        world.channel.delay = put_off  # type: ignore[method-assign]
        world.channel.lose()
        raise ChannelLost("cut")

    world.channel.delay = breaks  # type: ignore[assignment, method-assign]
    world.until(lambda: world.channel.cut)
    assert len(world.channel.held) == 3
    world.channel.cut = False
    world.until(lambda: sorted(ran) == [2, 3] and len(world.channel.delayed) == 1)
    world.until(lambda: not world.channel.held)
