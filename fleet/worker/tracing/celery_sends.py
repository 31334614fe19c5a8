"""Sends of a Celery app inside a worker: a span around each, and its context in the headers of the message."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any

from celery import signals
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind

from fleet.broker.envelope import SENT_AT_HEADER
from fleet.tracing.sending import SCOPE, TRACEPARENT, celery_is_instrumented, send_attributes

_MOST_OPEN = 1000
"""Sends that never came to an end, because the broker did not answer, are forgotten beyond so many."""


class _Sends:
    def __init__(self, system: str) -> None:
        self._system = system
        self._open: OrderedDict[str, Span] = OrderedDict()

    def before(
        self,
        sender: str = "",
        headers: MutableMapping[str, Any] | None = None,
        routing_key: str | None = None,
        **_facts: Any,
    ) -> None:
        """A message is about to be sent. What holds a context already keeps it: a retry belongs to the first send."""
        if headers is None or celery_is_instrumented():
            return
        if TRACEPARENT in headers:
            headers[SENT_AT_HEADER] = time.time()
            return
        task_id = str(headers.get("id", ""))
        span = trace.get_tracer(SCOPE).start_span(
            f"send {sender}",
            kind=SpanKind.PRODUCER,
            attributes={
                **send_attributes(str(sender), routing_key or "", system=self._system),
                "messaging.message.id": task_id,
            },
        )
        headers[SENT_AT_HEADER] = time.time()
        propagate.inject(headers, context=trace.set_span_in_context(span))
        self._open[task_id] = span
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].end()

    def after(self, headers: MutableMapping[str, Any] | None = None, **_facts: Any) -> None:
        """It was sent."""
        span = self._open.pop(str((headers or {}).get("id", "")), None)
        if span is not None:
            span.end()


_sends: _Sends | None = None


def connect(system: str) -> None:
    """Follow the sends of this process from now on. system: the broker's name."""
    global _sends
    if _sends is None:
        _sends = _Sends(system)
        signals.before_task_publish.connect(_sends.before, weak=False)
        signals.after_task_publish.connect(_sends.after, weak=False)
