"""The span of a send, and its context in the headers of the message, by the rules of the W3C.

It uses the program's own OpenTelemetry: a program that has not set it up pays a look into a dict or two, nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

TRACEPARENT = "traceparent"
SCOPE = "fleet"
"""The name of the instrumentation, by which spans and metrics of fleet are known."""


class Mark(Protocol):
    """Puts the context of a send into the headers of one of its messages, which may hold one already; then it stays."""

    def __call__(self, headers: MutableMapping[str, Any], /) -> None: ...


def sending(name: str, queue: str, *, url: str) -> AbstractContextManager[Mark]:
    """Around the send of messages of one task. url: of the broker."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):  # loaded, and nobody uses it
        return _UNTRACED
    return _SendSpan(name, queue, system=system_of(url))


def system_of(url: str) -> str:
    """The broker's name in ``messaging.system``, from its URL."""
    scheme = urlsplit(url.partition(";")[0]).scheme.partition("+")[0]
    if scheme in ("redis", "rediss", "valkey", "valkeys", "sentinel", "unix"):
        return "redis"
    return "rabbitmq" if scheme in ("amqp", "amqps", "pyamqp") else scheme or "unknown"


def send_attributes(name: str, queue: str, *, system: str) -> dict[str, str]:
    """What every span of a send says."""
    return {
        "messaging.system": system,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": queue,
        "fleet.task.name": name,
    }


def celery_is_instrumented() -> bool:
    """Whether OpenTelemetry's own instrumentation of Celery is at work here: it makes spans of sends and runs."""
    module: Any = sys.modules.get("opentelemetry.instrumentation.celery")
    return module is not None and bool(module.CeleryInstrumentor().is_instrumented_by_opentelemetry)


class _SendSpan:
    def __init__(self, name: str, queue: str, *, system: str) -> None:
        from opentelemetry import trace

        self._marked = 0
        self._last_id = ""
        self._span = trace.get_tracer(SCOPE).start_span(
            f"send {name}", kind=trace.SpanKind.PRODUCER, attributes=send_attributes(name, queue, system=system)
        )

    def __enter__(self) -> Mark:
        return self._mark

    def _mark(self, headers: MutableMapping[str, Any], /) -> None:
        from opentelemetry import propagate, trace

        self._marked += 1
        self._last_id = str(headers.get("id", ""))
        if TRACEPARENT not in headers:
            propagate.inject(headers, context=trace.set_span_in_context(self._span))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        from opentelemetry.trace import Status, StatusCode

        if self._marked == 1:
            self._span.set_attribute("messaging.message.id", self._last_id)
        elif self._marked:
            self._span.set_attribute("messaging.batch.message_count", self._marked)
        if error is not None:
            self._span.set_attribute("error.type", type(error).__qualname__)
            self._span.record_exception(error)
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end()


class _Untraced:
    def __enter__(self) -> Mark:
        return _leave

    def __exit__(self, *_error: object) -> None:
        pass


def _leave(_headers: MutableMapping[str, Any], /) -> None:
    pass


_UNTRACED = _Untraced()
