"""What a fleet expects of a worker: fleet's own and Celery's, every pool that both have, both brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.replica.record import RecordView, set_hold
from tests.conftest import eventually
from tests.worker.launched import LaunchedWorker

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

KINDS = ["worker", "celery"]
SLOTS = {"solo": 1, "prefork": 2, "threads": 2, "gevent": 2}
BROKERS = ["redis", "rabbitmq"]
Make = Callable[..., LaunchedWorker]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes a worker of a kind with a pool on a broker; it is cleaned up afterwards."""
    made: list[LaunchedWorker] = []

    def make(kind: str, pool: str, broker: str, *, prefetch: int | None = None) -> LaunchedWorker:
        url = request.getfixturevalue(f"{broker}_url")
        made.append(LaunchedWorker(tmp_path, url, kind=kind, pool=pool, slots=SLOTS[pool], prefetch=prefetch))
        return made[-1]

    yield make
    for worker in made:
        worker.open_gate()
        worker.clean()
        if worker.log_path.exists():
            print(worker.log())


def until(worker: LaunchedWorker, holds: Callable[[RecordView], bool]) -> RecordView:
    """The record, once it says so."""

    def look() -> RecordView | None:
        seen = worker.view()
        assert seen is not None
        assert holds(seen), f"{seen}\n{worker.log()}"
        return seen

    seen = eventually(look)
    assert seen is not None
    return seen


def every_pool_on_both_brokers(test: Callable[..., None]) -> Callable[..., None]:
    for name, values in (("broker", BROKERS), ("pool", list(SLOTS)), ("kind", KINDS)):
        test = pytest.mark.parametrize(name, values)(test)
    return test


@every_pool_on_both_brokers
def test_its_record_tells_its_life_its_tasks_and_its_counts(make: Make, kind: str, pool: str, broker: str) -> None:
    worker = make(kind, pool, broker).start()
    task = worker.blocked(1)

    seen = until(worker, lambda seen: seen.busy == 1)
    assert (seen.state, seen.slots, seen.foreign, seen.line_up) == ("ready", SLOTS[pool], False, True)
    assert [(one.task_id, one.task_name) for one in seen.tasks] == [(task, "contract.wait_for")]
    assert seen.started_at <= seen.tasks[0].since
    later = until(worker, lambda now: now.heartbeat_at > seen.heartbeat_at + 2)
    assert later.tasks[0].since == seen.tasks[0].since

    worker.open_gate()
    for name in ("broken", "again", "unknown"):
        worker.send(name)
    seen = until(worker, lambda seen: (seen.processed, seen.failed, seen.retried, seen.busy) == (4, 2, 1, 0))
    assert seen.busy_seconds > later.heartbeat_at - later.tasks[0].since - 0.1

    assert worker.term() == 0
    assert until(worker, lambda seen: seen.state == "stopped").processed == 4


@every_pool_on_both_brokers
def test_held_it_finishes_what_runs_and_takes_nothing_until_it_is_released(
    make: Make, kind: str, pool: str, broker: str
) -> None:
    worker = make(kind, pool, broker).start()
    worker.blocked(1)
    until(worker, lambda seen: seen.busy == 1)

    set_hold(worker.record_path, on=True)
    seen = until(worker, lambda seen: seen.state == "draining" and seen.resting)
    assert (seen.hold, seen.busy) == (True, 1)
    worker.send("note", str(worker.out), 2)
    worker.open_gate()
    freed = until(worker, lambda seen: seen.busy == 0)
    until(worker, lambda now: now.heartbeat_at > freed.heartbeat_at + 3)
    assert worker.done() == [1]
    assert until(worker, lambda seen: seen.busy == 0).processed == 1

    set_hold(worker.record_path, on=False)
    until(worker, lambda seen: seen.state == "ready" and seen.processed == 2)
    assert worker.done() == [1, 2]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broker", BROKERS)
def test_what_it_holds_unstarted_is_reported_and_goes_back_when_it_is_held(
    make: Make, kind: str, pool: str, broker: str
) -> None:
    worker = make(kind, pool, broker, prefetch=8).start()
    for number in range(8):
        worker.blocked(number)
    seen = until(worker, lambda seen: (seen.busy, seen.waiting) == (2, 6))
    assert seen.reserved == 8

    set_hold(worker.record_path, on=True)
    until(worker, lambda seen: seen.state == "draining" and (seen.busy, seen.waiting) == (2, 0))
    worker.open_gate()
    until(worker, lambda seen: seen.processed == 2 and not seen.busy)

    set_hold(worker.record_path, on=False)
    until(worker, lambda seen: seen.processed == 8)
    assert sorted(worker.done()) == list(range(8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broker", BROKERS)
def test_started_held_it_takes_nothing_until_it_is_released(make: Make, kind: str, broker: str) -> None:
    worker = make(kind, "solo", broker).start()
    set_hold(worker.record_path, on=True)
    until(worker, lambda seen: seen.state == "draining" and seen.resting)
    assert worker.term() == 0
    worker.start(ready=False)
    worker.send("note", str(worker.out), 1)

    held = until(worker, lambda seen: not seen.foreign and seen.resting and seen.line_up)
    until(worker, lambda now: now.heartbeat_at > held.heartbeat_at + 2)
    assert worker.done() == []

    set_hold(worker.record_path, on=False)
    until(worker, lambda seen: seen.state == "ready" and seen.processed == 1)


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_its_starter_when_it_consumes(make: Make, kind: str, tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(300)
        worker = make(kind, "solo", "redis")
        worker.spec = replace(worker.spec, env=(*worker.spec.env, ("NOTIFY_SOCKET", str(tmp_path / "notify"))))
        worker.start(ready=False)
        assert b"READY=1" in listener.recv(1000)
        until(worker, lambda seen: seen.state == "ready")
        worker.term()
        assert b"STOPPING=1" in listener.recv(1000)
