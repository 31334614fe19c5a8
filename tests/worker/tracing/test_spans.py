"""Spans of a run from what a message says, whoever sent it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from fleet.broker.envelope import SENT_AT_HEADER
from fleet.core.spec import TracingSpec
from fleet.tracing.exporting import Spans
from fleet.worker.task.call import Call, Outcome
from fleet.worker.tracing.spans import RunSpan, begin, lost_run
from pools.errors import Killed, SoftTimeLimit
from tests.collector import collector
from tests.memory_spans import MemorySpans, id_of, parent_of, trace_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"


def call_of(headers: Mapping[str, Any] | None = None, **fields: Any) -> Call:
    return Call("7", "shop.thumb", headers or {}, b"[[], {}, {}]", queue="thumbs", **fields)


def run_of(spans: MemorySpans, call: Call, fetched: tuple[float, float] = (0.0, 0.0)) -> RunSpan:
    return RunSpan(spans.tracer, call, fetched, system="redis")


def ran(spans: MemorySpans, call: Call, outcome: Outcome) -> None:
    with run_of(spans, call) as run:
        run.outcome = outcome


def test_wait_and_fetch_end_where_the_run_begins() -> None:
    spans, now, sent_at = MemorySpans(), time.monotonic(), time.time() - 5
    with run_of(spans, call_of({SENT_AT_HEADER: sent_at}), (now - 3, now - 2)) as run:
        run.outcome = Outcome("success")
    wait, fetch, end = (spans.ended[f"{what} shop.thumb"] for what in ("wait", "fetch", "run"))
    assert wait.start_time == int(sent_at * 1e9)
    assert wait.end_time == end.start_time
    assert (wait.start_time or 0) < (fetch.start_time or 0) < (fetch.end_time or 0) < (end.start_time or 0)
    assert (end.attributes or {})["fleet.task.outcome"] == "success"
    assert end.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "rubbish"},
        {"traceparent": 7},
        {"traceparent": b"\xff"},
        {"traceparent": [PARENT, PARENT]},
        {"traceparent": {"a": "b"}, "tracestate": 1, "baggage": None},
        {"traceparent": PARENT.replace("0af7", "0000" * 40)},
        {SENT_AT_HEADER: "never", "eta": "soon", "retries": "many", "root_id": 3},
        {SENT_AT_HEADER: time.time() + 1e6},
        {SENT_AT_HEADER: -1e300},
    ],
)
def test_no_header_keeps_a_task_from_running_or_its_run_from_being_told(headers: dict[str, Any]) -> None:
    spans = MemorySpans()
    ran(spans, call_of(headers), Outcome("success"))
    run, wait = spans.ended["run shop.thumb"], spans.ended["wait shop.thumb"]
    assert (parent_of(wait), parent_of(run)) == ("", id_of(wait))
    assert (wait.start_time or 0) <= (wait.end_time or 0)


def test_the_context_of_the_message_is_that_of_the_run() -> None:
    from opentelemetry import baggage, trace

    spans = MemorySpans()
    with run_of(spans, call_of({"traceparent": PARENT, "baggage": "tenant=a"})) as run:
        inside = trace.get_current_span().get_span_context().span_id
        assert baggage.get_baggage("tenant") == "a"
        run.outcome = Outcome("success")
    assert trace.get_current_span().get_span_context().span_id == 0
    ended = spans.ended["run shop.thumb"]
    assert (trace_of(ended), parent_of(ended)) == tuple(PARENT.split("-")[1:3])
    assert id_of(ended) == f"{inside:016x}"


def test_a_sender_that_keeps_no_trace_gets_none() -> None:
    spans = MemorySpans()
    ran(spans, call_of({"traceparent": UNSAMPLED}), Outcome("success"))
    assert spans.ended == {}


@pytest.mark.parametrize(
    ("outcome", "failed", "event"),
    [
        (Outcome("success"), False, None),
        (Outcome("ignored"), False, None),
        (Outcome("requeue"), False, None),
        (Outcome("retry", error="KeyError: 'a'", after_seconds=2.0), False, "retry"),
        (Outcome("retry", error="Retry in 3s"), False, "retry"),
        (Outcome("failure", error="KeyError('a')", traceback="Traceback …"), True, "exception"),
        (Outcome("dead", error="shop.errors.Broken: a"), True, "exception"),
        (Outcome("dead", error="it cannot be read"), True, "exception"),
    ],
)
def test_every_outcome_is_told(outcome: Outcome, failed: bool, event: str | None) -> None:
    spans = MemorySpans()
    ran(spans, call_of(), outcome)
    run = spans.ended["run shop.thumb"]
    assert (run.attributes or {})["fleet.task.outcome"] == outcome.state
    assert (run.status.status_code is StatusCode.ERROR) is failed
    assert [one.name for one in run.events] == ([event] if event else [])


def test_what_is_no_text_is_still_sent() -> None:
    """One span that cannot be encoded would take all others of its batch along."""
    bad = "\udc80"
    outcome = Outcome("failure", error=f"KeyError('{bad}')", traceback=f"Traceback {bad}")
    call = Call(bad, bad, {"root_id": bad, SENT_AT_HEADER: -1e300}, b"", queue=bad)
    with collector() as receiver:
        provider = Spans(TracingSpec(True, receiver.url), {"service.name": "thumbs"}).provider
        for told in (outcome, outcome._replace(state="retry")):
            with RunSpan(provider.get_tracer("test"), call, (0.0, 0.0), system="redis") as run:
                run.outcome = told
        with pytest.raises(ValueError), RunSpan(provider.get_tracer("test"), call, (0.0, 0.0), system="redis"):
            raise ValueError(bad)
        assert provider.force_flush()
        assert Counter(span.name for span in receiver.spans()) == {"wait ?": 3, "run ?": 3}
        provider.shutdown()


@pytest.mark.parametrize(
    ("error", "kind"),
    [("KeyError('a')", "KeyError"), ("shop.Broken: a", "shop.Broken"), ("it cannot be read", "_OTHER"), ("", "_OTHER")],
)
def test_the_kind_of_an_error_has_few_values(error: str, kind: str) -> None:
    spans = MemorySpans()
    ran(spans, call_of(), Outcome("failure", error=error))
    assert (spans.ended["run shop.thumb"].attributes or {})["error.type"] == kind


def test_what_a_task_raises_into_its_pool_goes_on() -> None:
    spans = MemorySpans()
    with pytest.raises(SystemExit), run_of(spans, call_of()):
        raise SystemExit(3)
    run = spans.ended["run shop.thumb"]
    assert (run.attributes or {})["error.type"] == "SystemExit"
    assert run.events[0].name == "exception"


@pytest.mark.parametrize("error", [Killed("time limit"), SystemExit(143)])
def test_a_run_that_is_ended_from_outside_is_left_to_who_knows_why(error: BaseException) -> None:
    spans = MemorySpans()
    run = run_of(spans, call_of())
    with pytest.raises(SystemExit), run:
        raise error
    assert "run shop.thumb" not in spans.ended
    run.close("hard time limit of 1 s", kind="timeout")
    run.close("once more", kind="lost")
    assert (spans.ended["run shop.thumb"].attributes or {})["error.type"] == "timeout"


def test_a_lost_run_is_told_from_when_it_started() -> None:
    spans, started = MemorySpans(), time.time() - 3
    call = call_of({"traceparent": PARENT})
    lost_run(spans.tracer, call, (0.0, 0.0), system="redis", started_at=started, ending="lost", detail="signal 9")
    run, wait = spans.ended["run shop.thumb"], spans.ended["wait shop.thumb"]
    assert run.start_time == wait.end_time == int(started * 1e9)
    assert (run.status.description, (run.attributes or {})["fleet.task.ending"]) == ("signal 9", "lost")
    assert parent_of(run) == PARENT.split("-")[2]


def test_a_task_that_does_not_run_has_a_wait_that_failed() -> None:
    spans = MemorySpans()
    begin(spans.tracer, call_of(), (0.0, 0.0), system="redis", until=time.time_ns(), ending="revoked", detail="revoked")
    (wait,) = spans.ended.values()
    assert (wait.attributes or {})["fleet.task.ending"] == "revoked"
    assert wait.status.status_code is StatusCode.ERROR


def test_a_message_that_came_again_says_so() -> None:
    spans = MemorySpans()
    ran(spans, call_of(attempts=2, redelivered=True), Outcome("success"))
    (event,) = spans.ended["run shop.thumb"].events
    assert (event.name, dict(event.attributes or {})) == ("redelivered", {"fleet.task.lost_attempts": 2})


class BrokenTracer:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def start_span(self, *_args: Any, **_kwargs: Any) -> Any:
        raise self.error


def test_a_tracer_that_fails_harms_no_task(caplog: pytest.LogCaptureFixture) -> None:
    tracer: Any = BrokenTracer(RuntimeError("no span"))
    with RunSpan(tracer, call_of(), (0.0, 0.0), system="redis") as run:
        run.outcome = Outcome("success")
    assert "Task shop.thumb[7] is not traced" in caplog.text


def test_a_soft_limit_that_comes_just_then_is_still_the_tasks() -> None:
    tracer: Any = BrokenTracer(SoftTimeLimit("soft time limit"))
    with pytest.raises(SoftTimeLimit):
        RunSpan(tracer, call_of(), (0.0, 0.0), system="redis")
