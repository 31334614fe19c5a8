"""What a worker promises about its tasks, on real brokers: once, whatever stops it, and never lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.core.spec import TaskPolicy
from tests.conftest import eventually
from tests.worker.workers import Shop

pytestmark = pytest.mark.system

POOLS = [("solo", 1), ("prefork", 3), ("threads", 3)]


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[Shop]:
    made = Shop(short_tmp, request.getfixturevalue(f"{request.param}_url"))
    yield made
    made.close()


@pytest.fixture
def redis_shop(redis_url: str, short_tmp: Path) -> Iterator[Shop]:
    made = Shop(short_tmp, redis_url)
    yield made
    made.close()


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_thousand_tasks_run_once_each(shop: Shop, pool: str, slots: int) -> None:
    shop.send_notes(range(1000))
    worker = shop.worker(pool, slots)
    eventually(lambda: len(shop.done()) == 1000)
    view = eventually(lambda: (v := worker.view()) is not None and v.processed == 1000 and v)
    assert view.failed == 0
    assert worker.term() == 0
    assert max(shop.done().values()) == 1
    assert shop.depth() == 0


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_term_in_the_middle_loses_nothing_and_runs_nothing_twice(shop: Shop, pool: str, slots: int) -> None:
    shop.send_notes(range(150), 0.02)
    for number in range(150, 160):  # who comes late to the others finds some of these: the middle lasts
        shop.send("wait_for", number, str(shop.gate()))
    worker = shop.worker(pool, slots, task=TaskPolicy(prefetch=8))
    eventually(lambda: len(shop.done()) >= 10)
    worker.signal(signal.SIGTERM)
    worker.wait_state("draining", "stopped")
    shop.gate().touch()
    assert worker.wait() == 0
    assert worker.view() is not None
    assert worker.view().state == "stopped"  # type: ignore[union-attr]
    assert len(shop.done()) < 160
    shop.worker(pool, slots)
    eventually(lambda: len(shop.done()) == 160)
    assert max(shop.done().values()) == 1


@pytest.mark.parametrize(("pool", "slots"), POOLS[:2])
def test_a_killed_worker_is_relieved_by_its_next_life(shop: Shop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    shop.send("wait_for", 1, str(shop.gate()))
    eventually(lambda: shop.started()[1] == 1)
    worker.kill()
    shop.gate().touch()
    worker.start()
    eventually(lambda: shop.done()[1] == 1)
    assert shop.started()[1] == 2


def test_a_killed_child_costs_its_task_one_attempt(shop: Shop) -> None:
    worker = shop.worker("prefork", 2)
    shop.send("wait_for", 1, str(shop.gate()))
    eventually(lambda: shop.started()[1] == 1)
    pid = eventually(lambda: next((t.pid for t in worker.view().tasks), None))  # type: ignore[union-attr]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: shop.started()[1] == 2)
    shop.gate().touch()
    eventually(lambda: shop.done()[1] == 1)
    assert shop.started()[1] == 2
    assert worker.term() == 0


def test_a_task_that_kills_its_child_ends_with_the_dead_letters(shop: Shop) -> None:
    worker = shop.worker("prefork", 2, task=TaskPolicy(max_attempts=3))
    task_id = shop.send("dies", 7)
    [message] = eventually(shop.dead)
    assert message.headers["id"] == task_id
    assert message.headers["x-fleet-queue"] == shop.queue
    assert "died" in message.headers["x-fleet-error"]
    assert shop.done()[7] == 3
    shop.send("note", 8)
    eventually(lambda: shop.done()[8] == 1)
    eventually(lambda: worker.view().failed == 1)  # type: ignore[union-attr]


def test_a_task_that_kills_a_solo_worker_ends_with_the_dead_letters(redis_shop: Shop) -> None:
    shop = redis_shop
    shop.send("dies", 7)
    worker = shop.worker(start=False, task=TaskPolicy(max_attempts=3))
    for _ in range(3):
        worker.start(ready=False)
        assert worker.wait() == -signal.SIGKILL
    worker.start()
    [message] = eventually(shop.dead)
    assert "3 times" in message.headers["x-fleet-error"]
    assert shop.done()[7] == 3


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_second_term_puts_running_tasks_back_at_once(shop: Shop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    shop.send("note", 1, 30.0)
    eventually(lambda: shop.started()[1] == 1)
    worker.signal(signal.SIGTERM)
    view = worker.wait_state("draining")
    eventually(lambda: "1 task left" in (v.note if (v := worker.view()) else ""))
    assert view.busy == 1
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    eventually(lambda: shop.depth() == 1)
    assert not shop.done()


def test_a_killed_worker_repeats_what_it_was_running_and_nothing_more(shop: Shop) -> None:
    """Also where it had taken quick tasks ahead, and had not told the broker of those that were done."""
    worker = shop.worker()
    shop.send_notes(range(3000))
    for done in (400, 1200, 2000):
        eventually(lambda: len(shop.started()) > done)  # noqa: B023
        worker.kill()
        worker.start()
    eventually(lambda: len(shop.done()) == 3000)
    assert sum(shop.started().values()) <= 3000 + 3
    assert not shop.dead()


def test_with_a_prefetch_what_is_done_is_counted_and_acknowledged_while_the_next_runs(shop: Shop) -> None:
    worker = shop.worker(start=False, task=TaskPolicy(prefetch=4))
    ids = [shop.send("wait_for", number, str(shop.folder / f"gate-{number}")) for number in range(4)]
    worker.start()
    for number in range(4):
        eventually(lambda: shop.started()[number] == 1)  # noqa: B023
        view = eventually(lambda: (view := worker.view()) and view.processed == number and view)  # noqa: B023
        assert [task.task_id for task in view.tasks] == [ids[number]]
        if "redis" in shop.url:
            eventually(lambda: _unacknowledged(shop) == 4 - number)  # noqa: B023
        (shop.folder / f"gate-{number}").touch()
    eventually(lambda: len(shop.done()) == 4)
    assert worker.term() == 0


@pytest.mark.parametrize(("pool", "slots"), POOLS[:2])
def test_the_drain_timeout_puts_running_tasks_back(shop: Shop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots, drain_timeout_seconds=0.5)
    shop.send("note", 1, 30.0)
    eventually(lambda: shop.started()[1] == 1)
    assert worker.term() == 0
    eventually(lambda: shop.depth() == 1)


def test_an_early_acknowledged_task_is_not_run_again(shop: Shop) -> None:
    worker = shop.worker()
    shop.send("wait_early", 1, str(shop.gate()))
    eventually(lambda: shop.started()[1] == 1)
    eventually(lambda: _unacknowledged(shop) == 0)
    worker.kill()
    shop.gate().touch()
    worker.start()
    shop.send("note", 2)
    eventually(lambda: shop.done()[2] == 1)
    assert shop.done()[1] == 0
    assert shop.started()[1] == 1


def _unacknowledged(shop: Shop) -> int:
    """On Redis: what workers hold. RabbitMQ tells nobody, but it has had the acknowledgement when the task starts."""
    if not shop.url.startswith("redis"):
        return 0
    import redis

    client = redis.Redis.from_url(shop.url)
    return sum(client.hlen(key) for key in client.scan_iter("*fleet:held:*shopfleet*"))


@pytest.mark.parametrize(("pool", "slots"), POOLS[:2])
def test_a_task_may_start_processes(redis_shop: Shop, pool: str, slots: int) -> None:
    redis_shop.worker(pool, slots)
    redis_shop.send("fan_out", 1)
    redis_shop.send("pool_terminate", 2)
    eventually(lambda: set(redis_shop.done()) == {1, 2})


def test_async_tasks_run_in_pools_without_a_loop(redis_shop: Shop) -> None:
    redis_shop.worker("threads", 2)
    redis_shop.send("note_async", 1)
    eventually(lambda: redis_shop.done()[1] == 1)


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_failing_task_is_retried_and_then_buried(shop: Shop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    shop.send("broken", 1)
    [message] = eventually(shop.dead)
    assert message.headers["x-fleet-error"] == "ValueError: as asked"
    assert "Traceback" in message.headers["x-fleet-traceback"]
    assert message.headers["x-fleet-retries"] == 2
    assert shop.done()[1] == 3
    eventually(lambda: (v := worker.view()) is not None and (v.processed, v.failed, v.retried) == (1, 1, 2))


def test_a_task_may_ask_to_be_run_again(shop: Shop) -> None:
    shop.worker()
    shop.send("asks_again", 1)
    eventually(lambda: shop.done()[1] == 2)


def test_countdown_waits_and_expires_discards(shop: Shop) -> None:
    shop.send("note", 1, countdown=0.5)
    shop.send("note", 2, countdown=0.5, expires=0.1)
    shop.send("note", 3)
    worker = shop.worker()
    eventually(lambda: shop.done()[3] == 1)
    eventually(lambda: shop.done()[1] == 1)
    eventually(lambda: (v := worker.view()) is not None and v.processed == 3)
    assert shop.done()[2] == 0


def test_unknown_tasks_and_junk_go_to_the_dead_letters(shop: Shop) -> None:
    from fleet.broker.publisher import Outgoing, Publisher

    worker = shop.worker()
    shop.send("nobody_knows_me", 1)
    with Publisher(shop.url) as publisher:
        publisher.send(Outgoing(shop.queue, b"\x00\xff not json", {}, {}, "application/octet-stream", "binary"))
        publisher.send(Outgoing(shop.queue, b"{]", {"task": "shop_tasks.note", "id": "x"}, {}))
    shop.send("note", 2)
    eventually(lambda: shop.done()[2] == 1)
    found = []
    eventually(lambda: found.extend(shop.dead()) or len(found) == 3)
    eventually(lambda: worker.view().failed == 3)  # type: ignore[union-attr]


def test_a_protocol_1_message_runs(shop: Shop) -> None:
    import json

    from fleet.broker.publisher import Outgoing, Publisher

    shop.worker()
    body = {"task": "shop_tasks.note", "id": "one", "args": [str(shop.out), 1], "kwargs": {}, "retries": 0}
    with Publisher(shop.url) as publisher:
        publisher.send(Outgoing(shop.queue, json.dumps(body).encode()))
    eventually(lambda: shop.done()[1] == 1)


def test_a_held_worker_takes_nothing_until_it_is_resumed(shop: Shop) -> None:
    from fleet.replica.record import set_hold

    worker = shop.worker(task=TaskPolicy(prefetch=4))
    set_hold(worker.record_path, on=True)
    worker.wait_state("draining")
    shop.send("note", 1)
    other = shop.worker(replica="shop.1")
    eventually(lambda: shop.done()[1] == 1)
    assert worker.view().processed == 0  # type: ignore[union-attr]
    other.term()
    set_hold(worker.record_path, on=False)
    worker.wait_state("ready")
    shop.send("note", 2)
    eventually(lambda: shop.done()[2] == 1)
