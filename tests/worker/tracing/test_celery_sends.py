"""Sends of a Celery app, through its own signals, to a broker in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals

from fleet.broker.envelope import SENT_AT_HEADER
from fleet.worker.tracing import celery_sends
from tests.memory_spans import MemorySpans, id_of, parent_of, trace_of

OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemorySpans]:
    before = signals.before_task_publish.receivers, signals.after_task_publish.receivers
    signals.before_task_publish.receivers = list(before[0])
    signals.after_task_publish.receivers = list(before[1])
    monkeypatch.setattr(celery_sends, "_sends", None)
    celery_sends.connect("redis")
    celery_sends.connect("redis")  # a second slot of this process
    yield MemorySpans().install(monkeypatch)
    signals.before_task_publish.receivers, signals.after_task_publish.receivers = before


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("shop", broker="memory://", set_as_current=False)
    yield made
    made.close()


def sent(app: Celery, **options: Any) -> dict[str, Any]:
    """The headers of a message, as its receiver sees them."""
    app.send_task("shop.thumb", queue="thumbs", **options)
    with app.connection_for_write() as connection:
        message = connection.default_channel.basic_get("thumbs", no_ack=True)
    assert message is not None
    return dict(message.headers)


def test_a_message_carries_the_span_of_its_send(spans: MemorySpans, app: Celery) -> None:
    with spans.tracer.start_as_current_span("run"):
        headers = sent(app, task_id="7")
    send = spans.ended["send shop.thumb"]
    assert headers["traceparent"].split("-")[:3] == ["00", trace_of(send), id_of(send)]
    assert parent_of(send) == id_of(spans.ended["run"])
    assert isinstance(headers[SENT_AT_HEADER], float)
    attributes = send.attributes or {}
    assert (attributes["messaging.message.id"], attributes["messaging.destination.name"]) == ("7", "thumbs")


def test_a_context_that_is_there_stays_and_has_no_second_span(spans: MemorySpans, app: Celery) -> None:
    assert sent(app, headers={"traceparent": OTHER})["traceparent"] == OTHER
    assert spans.ended == {}


def test_the_instrumentation_of_celery_is_left_alone(
    spans: MemorySpans, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CeleryInstrumentor:
        is_instrumented_by_opentelemetry = True

    module: Any = type(sys)("opentelemetry.instrumentation.celery")
    module.CeleryInstrumentor = CeleryInstrumentor
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.celery", module)
    assert "traceparent" not in sent(app)
    assert spans.ended == {}


def test_sends_that_never_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = MemorySpans().install(monkeypatch)
    monkeypatch.setattr(celery_sends, "_MOST_OPEN", 1)
    sends = celery_sends._Sends("redis")
    for number in range(3):
        sends.before(f"task{number}", {"id": str(number)})
    assert set(spans.ended) == {"send task0", "send task1"}
