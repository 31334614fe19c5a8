"""Traces of real workers: from the send through the wait to the run, in every pool, to a collector in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.core.spec import TracingSpec
from fleet.worker.lifecycle import EXIT_REPLACE
from tests.collector import Collector, SeenSpan, collector
from tests.conftest import eventually
from tests.worker.launched import LaunchedWorker
from tests.worker.workers import RunningWorker, Shop

pytestmark = pytest.mark.system

PRODUCER, CONSUMER = 4, 5
POOLS = ("solo", "threads", "prefork", "gevent", "eventlet", "asyncio")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, SPAN = PARENT.split("-")[1:3]
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}

MORE_TASKS = """

@tasks.task
def sends_note(path, number):
    tasks.send("shop_tasks.note", [path, number], queue=os.environ["NEXT_QUEUE"])


@tasks.task
def loaded(path, number):
    write(path, number if "opentelemetry.exporter" in sys.modules or "fleet.worker.tracing.spans" in sys.modules else 0)


@tasks.task(max_retries=0)
def own_span(path, number):
    from opentelemetry import trace
    with trace.get_tracer("shop").start_as_current_span("inside"):
        write(path, number)
"""


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as made:
        yield made


@pytest.fixture
def shop_at(short_tmp: Path) -> Iterator[Callable[[str], Shop]]:
    shops: list[Shop] = []

    def make(url: str) -> Shop:
        shop = Shop(short_tmp, url)
        path = short_tmp / "shop_tasks.py"
        path.write_text(path.read_text() + MORE_TASKS)
        shops.append(shop)
        return shop

    yield make
    for shop in shops:
        for worker in shop.workers:
            worker.clean()
        shop.tasks.close()


def traced_worker(shop: Shop, url: str, pool: str, **fields: Any) -> RunningWorker:
    environ = {**SOON, "NEXT_QUEUE": shop.queue, **fields.pop("environ", {})}
    return shop.worker(pool, 2 if pool != "solo" else 1, tracing=TracingSpec(True, url), environ=environ, **fields)


def send(shop: Shop, task: str, *arguments: Any, headers: Mapping[str, str] | None = None) -> None:
    """As another program would, with these headers."""
    from fleet.broker.message import build
    from fleet.broker.publisher import Publisher
    from fleet.tasks import outgoing

    built = build(f"shop_tasks.{task}", [str(shop.out), *arguments], extra=headers or {"traceparent": PARENT})
    with Publisher(shop.url) as publisher:
        publisher.send(outgoing(shop.queue, built))


def the(receiver: Collector, name: str) -> SeenSpan:
    """The one span of that name, once it is there."""
    found: list[SeenSpan] = eventually(lambda: receiver.named(name))  # type: ignore[assignment]
    (span,) = found
    return span


def assert_follows(receiver: Collector, task: str, *, parent: str, trace_id: str) -> SeenSpan:
    """Wait, fetch and run of one task, side by side below its send; the run."""
    run, wait, fetch = (the(receiver, f"{what} {task}") for what in ("run", "wait", "fetch"))
    assert {span.trace for span in (run, wait, fetch)} == {trace_id}
    assert {span.parent for span in (run, wait, fetch)} == {parent}
    assert wait.start <= wait.end == run.start <= run.end
    assert fetch.start <= fetch.end <= run.start
    assert run.kind == CONSUMER
    return run


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_traces_a_task_and_what_it_sends_and_lets_all_of_it_leave_at_its_end(
    pool: str, receiver: Collector, redis_url: str, shop_at: Callable[[str], Shop]
) -> None:
    shop = shop_at(redis_url)
    worker = traced_worker(shop, receiver.url, pool, environ={"OTEL_BSP_SCHEDULE_DELAY": "3600000"})
    send(shop, "sends_note", 1)
    send(shop, "own_span", 2)
    eventually(lambda: set(shop.done()) == {1, 2})
    assert worker.term() == 0
    first = assert_follows(receiver, "shop_tasks.sends_note", parent=SPAN, trace_id=TRACE)
    sent = the(receiver, "send shop_tasks.note")
    assert (sent.trace, sent.parent, sent.kind) == (TRACE, first.id, PRODUCER)
    second = assert_follows(receiver, "shop_tasks.note", parent=sent.id, trace_id=TRACE)
    assert second.attributes["messaging.system"] == "redis"
    assert second.attributes["messaging.destination.name"] == shop.queue
    assert second.attributes["messaging.operation.type"] == "process"
    assert second.attributes["messaging.message.id"] == sent.attributes["messaging.message.id"]
    assert second.resource["service.name"] == "shop"
    assert second.resource["service.instance.id"] == worker.replica
    assert the(receiver, "inside").parent == the(receiver, "run shop_tasks.own_span").id


def test_retries_errors_and_limits_are_told(
    receiver: Collector, redis_url: str, shop_at: Callable[[str], Shop]
) -> None:
    shop = shop_at(redis_url)
    worker = traced_worker(shop, receiver.url, "prefork")
    send(shop, "broken", 1)
    eventually(lambda: len(receiver.named("run shop_tasks.broken")) == 3)
    runs = sorted(receiver.named("run shop_tasks.broken"), key=lambda span: span.start)
    assert [run.attributes["fleet.task.retries"] for run in runs] == [0, 1, 2]
    assert {(run.trace, run.parent) for run in runs} == {(TRACE, SPAN)}
    assert [run.failed for run in runs] == [False, False, True]
    assert runs[0].events[0][0] == "retry"
    assert runs[0].events[0][1]["fleet.retry.after_seconds"] == 0.05
    name, facts = runs[2].events[0]
    assert (name, facts["exception.type"]) == ("exception", "ValueError")
    assert "as asked" in facts["exception.stacktrace"]
    assert runs[2].attributes["error.type"] == "ValueError"

    send(shop, "too_slow", 2)
    slow = the(receiver, "run shop_tasks.too_slow")
    assert (slow.failed, slow.attributes["error.type"]) == (True, "timeout")
    assert slow.end > slow.start

    send(shop, "exits", 5)
    exited = the(receiver, "run shop_tasks.exits")
    assert (exited.failed, exited.attributes["error.type"]) == (True, "SystemExit")

    send(shop, "no_such_task", 3)
    refused = the(receiver, "wait shop_tasks.no_such_task")
    assert (refused.failed, refused.attributes["fleet.task.ending"]) == (True, "unknown")
    assert receiver.named("run shop_tasks.no_such_task") == []
    assert worker.term() == 0
    assert [len(receiver.named(f"run shop_tasks.{task}")) for task in ("too_slow", "exits")] == [1, 1]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_limit_in_a_pool_of_one_process_is_told_once(
    pool: str, receiver: Collector, redis_url: str, shop_at: Callable[[str], Shop]
) -> None:
    shop = shop_at(redis_url)
    worker = traced_worker(shop, receiver.url, pool)
    send(shop, "too_slow", 1)
    slow = the(receiver, "run shop_tasks.too_slow")
    assert slow.failed
    assert slow.attributes["error.type"] == "timeout"
    assert worker.wait() == EXIT_REPLACE  # nothing can end this task but the end of its process
    assert len(receiver.named("run shop_tasks.too_slow")) == 1


def test_a_task_without_a_context_begins_a_trace(
    receiver: Collector, redis_url: str, shop_at: Callable[[str], Shop]
) -> None:
    shop = shop_at(redis_url)
    traced_worker(shop, receiver.url, "threads")
    send(shop, "note", 1, headers={"traceparent": "no context at all"})
    wait, run, fetch = (the(receiver, f"{what} shop_tasks.note") for what in ("wait", "run", "fetch"))
    assert (wait.parent, run.parent, fetch.parent) == ("", wait.id, wait.id)
    assert wait.trace == run.trace


def test_rabbitmq_carries_the_context(receiver: Collector, rabbitmq_url: str, shop_at: Callable[[str], Shop]) -> None:
    shop = shop_at(rabbitmq_url)
    worker = traced_worker(shop, receiver.url, "prefork")
    send(shop, "sends_note", 1)
    first = assert_follows(receiver, "shop_tasks.sends_note", parent=SPAN, trace_id=TRACE)
    sent = the(receiver, "send shop_tasks.note")
    assert sent.parent == first.id
    second = assert_follows(receiver, "shop_tasks.note", parent=sent.id, trace_id=TRACE)
    assert second.attributes["messaging.system"] == "rabbitmq"
    assert worker.term() == 0


def test_a_celery_app_is_traced_through_its_own_sends_and_retries(
    receiver: Collector, redis_url: str, short_tmp: Path
) -> None:
    worker = LaunchedWorker(short_tmp, redis_url, kind="worker", pool="prefork", slots=2)
    path = short_tmp / "contract.py"
    path.write_text(
        path.read_text() + "\n\n@app.task\ndef passes_on(path, number):\n"
        f"    note.apply_async((path, number), queue={worker.queue!r})\n"
    )
    worker.spec = replace(worker.spec, tracing=TracingSpec(True, receiver.url))
    try:
        worker.start(environ=SOON)
        worker.send("passes_on", str(worker.out), 1, headers={"traceparent": PARENT})
        first = assert_follows(receiver, "contract.passes_on", parent=SPAN, trace_id=TRACE)
        sent = the(receiver, "send contract.note")
        assert (sent.trace, sent.parent) == (TRACE, first.id)
        assert_follows(receiver, "contract.note", parent=sent.id, trace_id=TRACE)
        assert the(receiver, "wait contract.note").start >= first.start

        worker.send("again", headers={"traceparent": PARENT})
        eventually(lambda: len(receiver.named("run contract.again")) == 2)
        runs = sorted(receiver.named("run contract.again"), key=lambda span: span.start)
        assert [event for event, _ in runs[0].events] == ["retry"]
        assert [run.trace for run in runs] == [TRACE, TRACE]

        worker.send("broken", headers={"traceparent": PARENT})
        broken = the(receiver, "run contract.broken")
        assert (broken.failed, broken.attributes["error.type"]) == (True, "ValueError")
        assert "as asked" in dict(broken.events)["exception"]["exception.stacktrace"]
        assert worker.term() == 0
    finally:
        worker.clean()


@pytest.mark.parametrize(("how", "pool"), [("hangs", "prefork"), ("hangs", "gevent"), ("away", "threads")])
def test_a_collector_that_does_not_answer_delays_nothing(
    how: str, pool: str, redis_url: str, shop_at: Callable[[str], Shop]
) -> None:
    """The exporter alone would wait for an hour; the test would not."""
    shop = shop_at(redis_url)
    with collector(hangs=True) as receiver:
        url = receiver.url if how == "hangs" else "http://127.0.0.1:9"
        worker = traced_worker(shop, url, pool, environ={"OTEL_EXPORTER_OTLP_TIMEOUT": "3600"})
        send(shop, "note", 1)
        eventually(lambda: shop.done()[1])
        if how == "hangs":
            assert receiver.asked.wait(120)
        for number in range(2, 30):
            send(shop, "note", number)
        eventually(lambda: len(shop.done()) == 29)
        assert worker.term() == 0


def test_a_worker_without_tracing_loads_none_of_it(redis_url: str, shop_at: Callable[[str], Shop]) -> None:
    shop = shop_at(redis_url)
    worker = shop.worker("threads", 1, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    send(shop, "note", 1)
    send(shop, "loaded", 2)
    eventually(lambda: shop.done()[1])
    eventually(lambda: shop.done()[0])
    assert worker.term() == 0
