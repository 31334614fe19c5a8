"""The spans of one run: wait, fetch and run, from what the message says and two times that the loop has noted."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from fleet.broker.envelope import SENT_AT_HEADER, waits_since
from fleet.broker.message import retries_in
from fleet.worker.task.call import Call, Ending, Outcome
from pools.errors import Killed, SoftTimeLimit

log = logging.getLogger("fleet.worker")

_NANOSECONDS = 1_000_000_000
ENDED_EXIT_CODE = 143
"""With it a child of a prefork pool leaves a task that its parent ends."""
_MOST_TEXT = 10_000
"""Characters of an error or a traceback that are sent."""
_BROKEN = frozenset({"failure", "dead"})


Fetched = tuple[float, float]
"""When the loop asked for a message, and when it had it: ``time.monotonic()`` of this machine, 0.0 if unknown."""


class RunSpan:
    """Around one run of a task. What goes wrong in here is logged, and the task runs all the same.

    ``outcome``: to be set when the run has ended without an exception.  ``cut``: the pool ends the run from outside;
    the span stays open for the loop, which knows why.
    """

    def __init__(self, tracer: Tracer, call: Call, fetched: Fetched, *, system: str) -> None:
        self.outcome: Outcome | None = None
        self.cut = False
        self._call = call
        self._span: Span | None = None
        self._token: Any = None
        self._lock = threading.Lock()
        try:
            now = time.time_ns()
            parent = begin(tracer, call, fetched, system=system, until=now)
            self._span = tracer.start_span(
                f"run {_sendable(call.name)}",
                context=parent,
                kind=SpanKind.CONSUMER,
                attributes=_attributes(call, "run", "process", system),
                start_time=now,
            )
            self._context = trace.set_span_in_context(self._span, parent)
            if call.attempts or call.redelivered:
                self._span.add_event("redelivered", {"fleet.task.lost_attempts": call.attempts})
        except SoftTimeLimit:  # the task's, and not ours to answer
            raise
        except Exception:
            _complain(call)

    def __enter__(self) -> RunSpan:
        if self._span is not None:
            self._token = contexts.attach(self._context)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._token is not None:
            contexts.detach(self._token)
        self.cut = isinstance(error, Killed) or (isinstance(error, SystemExit) and error.code == ENDED_EXIT_CODE)
        if self.cut:
            return
        if error is not None:
            self.close(str(error) or type(error).__qualname__, kind=type(error).__qualname__, error=error)
        elif self.outcome is not None:
            self.close(self.outcome.error, outcome=self.outcome)

    def close(
        self, text: str, *, kind: str = "", outcome: Outcome | None = None, error: BaseException | None = None
    ) -> None:
        """End the span, once; whoever comes second does nothing."""
        with self._lock:
            span, self._span = self._span, None
        if span is None:
            return
        try:
            if outcome is None:
                _fail(span, kind, text)
                if error is not None:
                    _add_exception(span, kind, text, "".join(traceback.format_exception(error)))
            else:
                _tell(span, outcome)
        except Exception:
            _complain(self._call)
        finally:
            span.end()


def begin(
    tracer: Tracer, call: Call, fetched: Fetched, *, system: str, until: int, ending: str = "", detail: str = ""
) -> Context:
    """The spans before a run, which are over at ``until`` (Unix nanoseconds); the context that the run belongs to.

    That is the send's. Where the message carries none, the trace begins with the wait. ending: it does not run.
    """
    call_context = propagate.extract(_texts(call.headers))
    asked_at, received_at = fetched
    received = _unix_nanoseconds(received_at, until)
    since = waits_since(call.headers.get(SENT_AT_HEADER), call.headers.get("eta"))
    start = received if since is None or since <= 0 else int(since * _NANOSECONDS)
    wait = tracer.start_span(
        f"wait {_sendable(call.name)}",
        context=call_context,
        attributes=_attributes(call, "wait", "", system),
        start_time=min(start, until),
    )
    if ending:
        wait.set_attribute("fleet.task.ending", ending)
        _fail(wait, ending, detail)
    wait.end(until)
    if not trace.get_current_span(call_context).get_span_context().is_valid:
        call_context = trace.set_span_in_context(wait, call_context)
    if asked_at:
        fetch = tracer.start_span(
            f"fetch {_sendable(call.name)}",
            context=call_context,
            kind=SpanKind.CLIENT,
            attributes=_attributes(call, "fetch", "receive", system),
            start_time=_unix_nanoseconds(asked_at, received),
        )
        fetch.end(received)
    return call_context


def lost_run(
    tracer: Tracer,
    call: Call,
    fetched: Fetched,
    *,
    system: str,
    started_at: float,
    ending: Ending,
    detail: str,
) -> None:
    """The spans of a run whose process has ended with it. started_at: Unix seconds."""
    start = int(started_at * _NANOSECONDS)
    parent = begin(tracer, call, fetched, system=system, until=start)
    span = tracer.start_span(
        f"run {_sendable(call.name)}",
        context=parent,
        kind=SpanKind.CONSUMER,
        attributes={**_attributes(call, "run", "process", system), "fleet.task.ending": ending},
        start_time=start,
    )
    _fail(span, ending, detail)
    span.end()


def _attributes(call: Call, operation: str, kind: str, system: str) -> dict[str, Any]:
    """By OpenTelemetry's conventions for messaging; what they have no name for begins with ``fleet``."""
    found: dict[str, Any] = {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.destination.name": _sendable(call.queue),
        "messaging.message.id": _sendable(call.id),
        "fleet.task.name": _sendable(call.name),
        "fleet.task.retries": retries_in(call.headers),
    }
    if isinstance(call.body, bytes | str):
        found["messaging.message.body.size"] = len(call.body)
    if kind:
        found["messaging.operation.type"] = kind
    if isinstance(root := call.headers.get("root_id"), str):
        found["messaging.message.conversation_id"] = _sendable(root)
    return found


def _tell(span: Span, outcome: Outcome) -> None:
    """How it ended. A retry is an event of this run: the next run has a span of its own, below the same send."""
    span.set_attribute("fleet.task.outcome", outcome.state)
    if outcome.state == "retry":
        pause = {} if outcome.after_seconds is None else {"fleet.retry.after_seconds": outcome.after_seconds}
        span.add_event("retry", {"exception.message": _sendable(outcome.error), **pause})
    elif outcome.state in _BROKEN:
        kind = _kind_of(outcome.error)
        _fail(span, kind, outcome.error)
        _add_exception(span, kind, outcome.error, outcome.traceback)


def _fail(span: Span, kind: str, text: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, _sendable(text)))


def _add_exception(span: Span, kind: str, text: str, stack: str) -> None:
    facts = {"exception.type": kind, "exception.message": _sendable(text)}
    span.add_event("exception", facts | ({"exception.stacktrace": _sendable(stack)} if stack else {}))


def _sendable(text: str) -> str:
    """Its end, without halves of characters: with one of them, all spans that leave together would be lost."""
    return text[-_MOST_TEXT:].encode(errors="replace").decode()


def _kind_of(error: str) -> str:
    """``ValueError`` of ``ValueError: text`` and of ``ValueError('text')``."""
    name = error.partition("(")[0].partition(":")[0].strip()
    return name if name.replace(".", "").isidentifier() else "_OTHER"


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers that carry a context, as far as they are text: anybody may have sent this message."""
    fields = propagate.get_global_textmap().fields
    return {field: value for field in fields if isinstance(value := headers.get(field), str)}


def _unix_nanoseconds(monotonic: float, at_most: int) -> int:
    if not monotonic:
        return at_most
    return min(at_most, time.time_ns() - int((time.monotonic() - monotonic) * _NANOSECONDS))


def _complain(call: Call) -> None:
    log.warning("Task %s[%s] is not traced", call.name, call.id, exc_info=True)
