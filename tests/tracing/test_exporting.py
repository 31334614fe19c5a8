"""Where spans go, who sends them, and a collector that does not answer."""

from __future__ import annotations

import threading

import pytest

from fleet.core.spec import TracingSpec
from fleet.tracing.exporting import Spans, flush, resource_of, signal_url
from tests.collector import collector
from tests.conftest import eventually

WHO = {"service.name": "thumbs", "service.namespace": "shop"}


def test_spans_go_where_the_manifest_says_with_the_headers_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
    with collector() as receiver:
        spans = Spans(TracingSpec(True, receiver.url), WHO)
        spans.provider.get_tracer("test").start_span("one").end()
        spans.flush()
        (span,) = eventually(lambda: receiver.named("one"))
        spans.provider.shutdown()
        assert span.resource["service.name"] == "thumbs"
        assert {headers.get("x-tenant") for headers in receiver.headers} == {"shop"}


def test_without_a_url_the_environment_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        spans = Spans(TracingSpec(True), WHO)
        spans.provider.get_tracer("test").start_span("one").end()
        spans.flush()
        assert eventually(lambda: receiver.named("one"))
        spans.provider.shutdown()


def test_the_part_that_is_kept_is_of_traces_that_begin_here() -> None:
    from opentelemetry import propagate

    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    spans = Spans(TracingSpec(True, "http://127.0.0.1:9", sample=0.0), WHO)
    tracer = spans.provider.get_tracer("test")
    assert not tracer.start_span("one").is_recording()
    assert tracer.start_span("two", context=propagate.extract(headers)).is_recording()


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resource_of(WHO).attributes["service.name"] == "thumbs"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=ours,team=a")
    found = resource_of(WHO).attributes
    assert (found["service.name"], found["service.namespace"], found["team"]) == ("mine", "ours", "a")


def test_each_signal_has_its_path() -> None:
    assert signal_url("http://host:4318", "traces") == "http://host:4318/v1/traces"
    assert signal_url("", "traces") is None


def test_a_flush_goes_on_without_what_hangs() -> None:
    over = threading.Event()

    class Hangs:
        def force_flush(self) -> None:
            over.wait()

    flush(Hangs(), seconds=0.01)
    assert not over.is_set()
    over.set()


def test_a_flush_of_what_cannot_flush_or_fails_is_none() -> None:
    class Fails:
        def force_flush(self) -> None:
            raise OSError("no collector")

    flush(Fails())
    flush(object())


def test_no_flush_waits_for_a_collector_that_did_not_answer_before() -> None:
    with collector(hangs=True) as receiver:
        spans = Spans(TracingSpec(True, receiver.url), WHO)
        spans.provider.get_tracer("test").start_span("one").end()
        threading.Thread(target=spans.provider.force_flush, daemon=True).start()
        assert receiver.asked.wait(120)
        eventually(lambda: spans._exporter.is_failing)
        spans.flush()
