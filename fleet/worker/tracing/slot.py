"""What a pool calls in a slot while tasks are traced: the same as without, with spans around it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet.core.spec import TracingSpec
from fleet.tracing import exporting
from fleet.tracing.sending import SCOPE, TRACEPARENT, celery_is_instrumented
from fleet.worker import execution
from fleet.worker.task.call import Call, Ending, Outcome

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from fleet.worker.tracing.spans import Fetched, RunSpan

log = logging.getLogger("fleet.worker")


@dataclass(frozen=True, slots=True)
class SlotTracing:
    """How the slots of one worker trace. Small and picklable.

    attributes: of the resource, pairs.  system: the broker's name.  own_processes: slots are processes, which end
    together with the run that is ended in them.
    """

    spec: TracingSpec
    attributes: tuple[tuple[str, str], ...]
    system: str
    own_processes: bool


class _Tracing:
    """The tracing of this process. open: runs by task, to be closed by who ends them from outside."""

    def __init__(self, how: SlotTracing) -> None:
        from opentelemetry import trace

        self.how = how
        self.open: dict[str, RunSpan] = {}
        self.spans: exporting.Spans | None = None
        current = trace.get_tracer_provider()
        if isinstance(current, trace.ProxyTracerProvider):  # else the app has one of its own, which then is used
            self.spans = exporting.Spans(how.spec, dict(how.attributes))
            trace.set_tracer_provider(self.spans.provider)
        self.tracer: Tracer = trace.get_tracer(SCOPE)

    def flush(self) -> None:
        from opentelemetry import trace

        if self.spans is not None:
            self.spans.flush()
        else:
            exporting.flush(trace.get_tracer_provider())


_tracing: _Tracing | None = None


def pool_options(of_execution: Sequence[Any], how: SlotTracing) -> dict[str, Any]:
    """For the pool, in place of what it gets without tracing. Imports what slots need, before they are forked.

    of_execution: what ``execution.prepare`` is called with.
    """
    exporting.load()
    return {"initializer": prepare, "initargs": (how, *of_execution), "finalizer": finish}


def prepare(how: SlotTracing, *of_execution: Any) -> None:
    """Initializer of a slot's process. After the app's own, which may set up OpenTelemetry itself."""
    global _tracing
    execution.prepare(*of_execution)
    try:
        _tracing = _Tracing(how)
        if execution.bound().kind == "celery":
            from fleet.worker.tracing import celery_sends

            celery_sends.connect(how.system)
    except Exception:
        _tracing = None
        log.exception("tasks are not traced in this process")


def finish() -> None:
    """Finalizer of a slot's process. What is still open runs no more, and its message goes back."""
    execution.finish()
    if _tracing is not None:
        for run in list(_tracing.open.values()):
            run.close("its worker has ended", kind="terminated")
    flush()


def flush() -> None:
    """Send what is left; it waits only for a moment."""
    if _tracing is not None:
        with suppress(Exception):
            _tracing.flush()


def perform(call: Call, fetched: Fetched) -> Outcome:
    """Run one task."""
    run = _run_of(call, fetched)
    if run is None:
        return execution.perform(call)
    try:
        with run:
            run.outcome = execution.perform(call._replace(report=True))
    finally:
        _close(call, run)
    return _as_asked(run.outcome, call)


async def perform_async(call: Call, fetched: Fetched) -> Outcome:
    """Run one task on the loop of the pool."""
    run = _run_of(call, fetched)
    if run is None:
        return await execution.perform_async(call)
    try:
        with run:
            run.outcome = await execution.perform_async(call._replace(report=True))
    finally:
        _close(call, run)
    return _as_asked(run.outcome, call)


def _run_of(call: Call, fetched: Fetched) -> RunSpan | None:
    if _tracing is None:
        return None
    from fleet.worker.tracing import spans

    if celery_is_instrumented():  # the run and its sends are told by that; what came before it is not
        if TRACEPARENT in call.headers:
            with suppress(Exception):
                spans.begin(_tracing.tracer, call, fetched, system=_tracing.how.system, until=time.time_ns())
        return None
    run = spans.RunSpan(_tracing.tracer, call, fetched, system=_tracing.how.system)
    _tracing.open[call.id] = run
    return run


def _close(call: Call, run: RunSpan) -> None:
    """It stays open while somebody in this process is to tell how it was ended."""
    if _tracing is not None and (_tracing.how.own_processes or not run.cut) and _tracing.open.get(call.id) is run:
        del _tracing.open[call.id]


def _as_asked(outcome: Outcome | None, call: Call) -> Outcome:
    """Without what only the span needed."""
    assert outcome is not None
    return outcome if call.report or execution.bound().kind != "celery" else outcome._replace(result="", traceback="")


def record_end(
    call: Call, ending: Ending, detail: str, limit_seconds: float | None, fetched: Fetched, started_at: float
) -> None:
    """Record the end of a task that could not report it, with its spans. started_at: Unix seconds, 0.0: never."""
    span_of_end(call, ending, detail, fetched, started_at)
    execution.record_end(call, ending, detail, limit_seconds)


def span_of_end(call: Call, ending: Ending, detail: str, fetched: Fetched, started_at: float) -> None:
    """The spans of such a task. Errors are logged."""
    if _tracing is None:
        return
    from fleet.worker.tracing import spans

    tracer, how = _tracing.tracer, _tracing.how
    try:
        if (run := _tracing.open.pop(call.id, None)) is not None:
            run.close(detail, kind=ending)
        elif not started_at or ending == "unstartable":
            until = time.time_ns()
            spans.begin(tracer, call, fetched, system=how.system, until=until, ending=ending, detail=detail)
        elif how.own_processes and ending != "raised":  # a run that raised has told it itself
            spans.lost_run(
                tracer, call, fetched, system=how.system, started_at=started_at, ending=ending, detail=detail
            )
    except Exception:
        log.exception("the end of task %s[%s] is not traced", call.name, call.id)
