"""What a send puts into the headers of its messages, and its span."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from fleet import Tasks
from fleet.broker.delivery import Delivery
from fleet.broker.message import TaskMessage, build
from fleet.broker.publisher import Outgoing, Publisher
from fleet.tracing.sending import celery_is_instrumented, sending, system_of
from tests.memory_spans import MemorySpans, id_of, parent_of, trace_of

OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> MemorySpans:
    return MemorySpans().install(monkeypatch)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Outgoing]:
    """Instead of a broker."""
    found: list[Outgoing] = []

    def keep(_publisher: Publisher, messages: Sequence[Outgoing]) -> None:
        found.extend(messages)

    monkeypatch.setattr(Publisher, "_send", keep)
    return found


def test_a_program_without_opentelemetry_sends_as_before(sent: list[Outgoing]) -> None:
    Tasks("shop", broker="redis://nowhere").send("shop.thumb", [1])
    (message,) = sent
    assert {"traceparent", "tracestate", "baggage"} & message.headers.keys() == set()


def test_nothing_is_imported_for_it() -> None:
    script = "from fleet.tracing.sending import sending\nwith sending('a', 'q', url='redis://x') as mark: mark({})\n"
    script += "import sys; print(any(name.startswith('opentelemetry') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_message_carries_the_span_of_its_send_below_the_span_around_it(
    spans: MemorySpans, sent: list[Outgoing]
) -> None:
    tasks = Tasks("shop", broker="amqp://nowhere")
    with spans.tracer.start_as_current_span("request"):
        task_id = tasks.send("shop.thumb", ["a.png"], queue="thumbs")
    (message,) = sent
    send = spans.ended["send shop.thumb"]
    assert message.headers["traceparent"].split("-")[:3] == ["00", trace_of(send), id_of(send)]
    assert parent_of(send) == id_of(spans.ended["request"])
    assert send.kind is SpanKind.PRODUCER
    assert dict(send.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "thumbs",
        "messaging.message.id": task_id,
        "fleet.task.name": "shop.thumb",
    }


def test_many_messages_have_one_span(spans: MemorySpans, sent: list[Outgoing]) -> None:
    Tasks("shop", broker="redis://nowhere").send_many("shop.thumb", [[1], [2], [3]])
    (send,) = spans.ended.values()
    assert {message.headers["traceparent"].split("-")[2] for message in sent} == {id_of(send)}
    assert (send.attributes or {})["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in (send.attributes or {})


def test_a_send_that_fails_says_so(spans: MemorySpans) -> None:
    with pytest.raises(OSError, match="no broker"), sending("shop.thumb", "q", url="redis://x"):
        raise OSError("no broker")
    (send,) = spans.ended.values()
    assert send.status.status_code is StatusCode.ERROR
    assert (send.attributes or {})["error.type"] == "OSError"


def test_a_context_that_is_there_stays(spans: MemorySpans) -> None:
    headers: dict[str, Any] = {"id": "7", "traceparent": OTHER}
    with sending("shop.thumb", "q", url="redis://x") as mark:
        mark(headers)
    assert headers == {"id": "7", "traceparent": OTHER}


def test_a_retry_keeps_the_context_of_its_send() -> None:
    built = build("shop.thumb", extra={"traceparent": OTHER, "tracestate": "a=b", "baggage": "c=d"})
    delivery = Delivery("1", "q", built.body, built.headers, built.properties)
    again = TaskMessage.from_delivery(delivery).again(retries=1, eta=None)
    assert [again.headers[name] for name in ("traceparent", "tracestate", "baggage")] == [OTHER, "a=b", "c=d"]


@pytest.mark.parametrize(
    ("url", "system"),
    [
        ("redis://:secret@host/0", "redis"),
        ("rediss://host", "redis"),
        ("sentinel://a;sentinel://b", "redis"),
        ("redis+socket:///run/redis.sock", "redis"),
        ("amqp://user:pw@host//", "rabbitmq"),
        ("pyamqp://host", "rabbitmq"),
        ("sqla+postgresql://host/db", "sqla"),
        ("memory://", "memory"),
        ("", "unknown"),
    ],
)
def test_the_system_is_the_brokers(url: str, system: str) -> None:
    assert system_of(url) == system


@pytest.mark.parametrize("instruments", [True, False])
def test_the_instrumentation_of_celery_is_seen_where_it_is_at_work(
    instruments: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CeleryInstrumentor:
        is_instrumented_by_opentelemetry = instruments

    module = type(sys)("opentelemetry.instrumentation.celery")
    monkeypatch.setattr(module, "CeleryInstrumentor", CeleryInstrumentor, raising=False)
    assert not celery_is_instrumented()
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.celery", module)
    assert celery_is_instrumented() is instruments
