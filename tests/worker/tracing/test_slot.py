"""What a slot calls while tasks are traced, with an app of one task and spans in memory."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from fleet import Tasks
from fleet.core.spec import TracingSpec
from fleet.worker import execution
from fleet.worker.apps.registry import RegistryApplication
from fleet.worker.task.call import Call
from fleet.worker.tracing import slot
from fleet.worker.tracing.slot import SlotTracing
from tests.memory_spans import MemorySpans, parent_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
tasks = Tasks("shop")


@tasks.task(name="shop.thumb")
def thumb() -> None: ...


@tasks.task(name="shop.later")
async def later() -> None: ...


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> MemorySpans:
    """As after ``prepare``, in an app that has set up OpenTelemetry itself."""
    made = MemorySpans().install(monkeypatch)
    how = SlotTracing(TracingSpec(True), (), "redis", own_processes=False)
    monkeypatch.setattr(execution, "_bound", RegistryApplication(tasks))
    monkeypatch.setattr(slot, "_tracing", slot._Tracing(how))
    return made


def call_of(name: str, **headers: str) -> Call:
    return Call("7", name, headers, b"[[], {}, {}]", queue="thumbs")


def test_a_provider_of_the_app_is_used(spans: MemorySpans) -> None:
    outcome = slot.perform(call_of("shop.thumb"), (0.0, 0.0))
    assert (outcome.state, outcome.result) == ("success", "")
    assert set(spans.ended) == {"wait shop.thumb", "run shop.thumb"}


def test_a_coroutine_is_traced(spans: MemorySpans) -> None:
    assert asyncio.run(slot.perform_async(call_of("shop.later"), (0.0, 0.0))).state == "success"
    assert set(spans.ended) == {"wait shop.later", "run shop.later"}


def test_where_tracing_could_not_be_set_up_tasks_run(spans: MemorySpans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "_tracing", None)
    assert slot.perform(call_of("shop.thumb"), (0.0, 0.0)).state == "success"
    slot.span_of_end(call_of("shop.thumb"), "timeout", "too long", (0.0, 0.0), 1.0)
    slot.flush()
    assert spans.ended == {}


@pytest.mark.parametrize(("headers", "told"), [({"traceparent": PARENT}, {"wait shop.thumb"}), ({}, set())])
def test_beside_the_instrumentation_of_celery_only_what_it_does_not_tell_is_told(
    headers: dict[str, str], told: set[str], spans: MemorySpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CeleryInstrumentor:
        is_instrumented_by_opentelemetry = True

    module: Any = type(sys)("opentelemetry.instrumentation.celery")
    module.CeleryInstrumentor = CeleryInstrumentor
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.celery", module)
    assert slot.perform(call_of("shop.thumb", **headers), (0.0, 0.0)).state == "success"
    assert set(spans.ended) == told
    assert {parent_of(span) for span in spans.ended.values()} == ({PARENT.split("-")[2]} if told else set())


def test_an_end_that_is_told_from_outside_closes_the_run_that_is_open_here(spans: MemorySpans) -> None:
    call = call_of("shop.thumb")
    run = slot._run_of(call, (0.0, 0.0))
    assert run is not None
    slot.span_of_end(call, "timeout", "hard time limit of 1 s", (0.0, 0.0), 1.0)
    slot.span_of_end(call, "timeout", "hard time limit of 1 s", (0.0, 0.0), 1.0)
    assert (spans.ended["run shop.thumb"].attributes or {})["error.type"] == "timeout"
