"""Where spans go: a provider of the SDK with a batching exporter over OTLP/HTTP, and a flush that never waits long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from fleet.core.spec import TracingSpec

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import Sampler

FLUSH_SECONDS = 1.0
"""How long the end of a process waits at most for its last spans to leave."""

MISSING = "this Python has no OpenTelemetry: install workerfleet[otel]"


def is_installed() -> bool:
    """Whether the extra is there. It is not imported."""
    try:
        return find_spec("opentelemetry.sdk") is not None and find_spec("opentelemetry.exporter.otlp") is not None
    except ModuleNotFoundError:
        return False


def load() -> None:
    """Import what is needed, once, in the process that others are forked from."""
    import opentelemetry.exporter.otlp.proto.http.trace_exporter
    import opentelemetry.sdk.trace.export  # noqa: F401


def resource_of(attributes: Mapping[str, str]) -> Resource:
    """Who sends. What the OTEL_ variables say wins."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    return Resource.create().merge(Resource(dict(attributes))).merge(OTELResourceDetector().detect())


def signal_url(base: str, signal: str) -> str | None:
    """Where one signal goes below a collector's URL; None for none: the exporter then reads the OTEL_ variables."""
    return f"{base}/v1/{signal}" if base else None


class Spans:
    """The provider of one process, made in that process: its exporter has a thread, which no fork copies."""

    def __init__(self, spec: TracingSpec, attributes: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._exporter = _Watched(OTLPSpanExporter(endpoint=signal_url(spec.otlp, "traces")))
        self.provider: TracerProvider = TracerProvider(
            sampler=_sampler(spec),
            resource=resource_of(attributes),
            shutdown_on_exit=False,  # it would wait for half a minute for a collector that is away
        )
        self.provider.add_span_processor(BatchSpanProcessor(cast("SpanExporter", self._exporter)))

    def flush(self) -> None:
        """Send what is left, for FLUSH_SECONDS at most; not at all where the collector did not answer before."""
        if not self._exporter.is_failing:
            flush(self.provider)


def flush(provider: Any, *, seconds: float = FLUSH_SECONDS) -> None:
    """Let a provider, of any kind, send what it has; go on when it takes longer. The SDK's own flush has no limit."""
    force = getattr(provider, "force_flush", None)
    if force is None:
        return
    thread = threading.Thread(target=_quietly, args=(force,), name="tracing-flush", daemon=True)
    thread.start()
    thread.join(seconds)


def _quietly(force: Any) -> None:
    try:
        force()
    except Exception:  # the process ends: nobody could do anything about it
        return


def _sampler(spec: TracingSpec) -> Sampler | None:
    """None: the SDK reads OTEL_TRACES_SAMPLER. A trace that began elsewhere is kept as it was decided there."""
    if spec.sample is None:
        return None
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    return ParentBasedTraceIdRatio(spec.sample)


class _Watched:
    """An exporter of spans that knows whether its collector answers."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failed = False
        self._since = 0.0

    @property
    def is_failing(self) -> bool:
        """Whether the last try failed, or one goes on for so long that it will."""
        return self._failed or (self._since > 0.0 and time.monotonic() - self._since > FLUSH_SECONDS)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        from opentelemetry.sdk.trace.export import SpanExportResult

        self._since = time.monotonic()
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._since = 0.0
            self._failed = result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


@contextmanager
def own_spans(spec: TracingSpec, *, fleet: str) -> Iterator[None]:
    """For a command that sends tasks: its spans go where those of the workers go. Does nothing while it is off."""
    if not spec.on or not is_installed():
        yield
        return
    from opentelemetry import trace

    spans = Spans(spec, {"service.name": "fleet-send", "service.namespace": fleet})
    trace.set_tracer_provider(spans.provider)
    try:
        yield
    finally:
        spans.flush()
