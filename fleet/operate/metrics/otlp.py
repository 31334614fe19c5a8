"""Sends metrics to an OpenTelemetry collector: the samples of a scrape, as OTLP over HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as OtlpHistogram
from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from fleet._version import __version__
from fleet.errors import Unreachable
from fleet.operate.metrics.catalogue import METRICS, Metric
from fleet.operate.metrics.samples import Sample
from fleet.replica.task_counters import BUCKETS, Histogram
from fleet.tracing.exporting import resource_of, signal_url
from fleet.tracing.sending import SCOPE

_UNITS = {"_seconds": "s", "_bytes": "By"}


class MetricsSender:
    """Sends to one collector, with the headers and the timeout that OTEL_ variables say."""

    def __init__(self, url: str) -> None:
        self._url = url
        # One line of ours says what is wrong; the exporter writes one per try, with its traceback.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPMetricExporter(endpoint=signal_url(url, "metrics"))
        self._resource = resource_of({"service.name": "fleet-metrics"})

    def send(self, samples: Iterable[Sample]) -> None:
        """Send all of them. Raises Unreachable where the collector does not take them."""
        scope = ScopeMetrics(InstrumentationScope(SCOPE, __version__), otlp_metrics(samples, now=time.time()), "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        if self._exporter.export(data) is not MetricExportResult.SUCCESS:
            raise Unreachable(f"the collector at {self._url} does not take metrics", hint=_NO_COLLECTOR)


_NO_COLLECTOR = "does it listen there for OTLP over HTTP (usually port 4318), and is /v1/metrics allowed?"


def otlp_metrics(samples: Iterable[Sample], *, now: float) -> list[OtlpMetric]:
    """One metric per family, in the order of the catalogue. now: Unix seconds."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.metric, []).append(sample)
    at = int(now * 1_000_000_000)
    return [_metric(METRICS[name], families[name], at) for name in METRICS if name in families]


def _metric(metric: Metric, samples: Sequence[Sample], at: int) -> OtlpMetric:
    """A counter without ``_total``, which collectors put there where Prometheus is to read it."""
    name = metric.name.removesuffix("_total")
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "1")
    return OtlpMetric(name, metric.help, unit, _data(metric, samples, at))


def _data(metric: Metric, samples: Sequence[Sample], at: int) -> Gauge | Sum | OtlpHistogram:
    if metric.kind == "histogram":
        points = [_histogram_point(metric, one, one.value, at) for one in samples if isinstance(one.value, Histogram)]
        return OtlpHistogram(points, AggregationTemporality.CUMULATIVE)
    numbers = [
        NumberDataPoint(_labels(metric, one), 0, at, float(one.value))
        for one in samples
        if not isinstance(one.value, Histogram)
    ]
    return Sum(numbers, AggregationTemporality.CUMULATIVE, True) if metric.kind == "counter" else Gauge(numbers)


def _histogram_point(metric: Metric, sample: Sample, value: Histogram, at: int) -> HistogramDataPoint:
    """Without least and most, which nobody has kept."""
    return HistogramDataPoint(
        attributes=_labels(metric, sample),
        start_time_unix_nano=0,
        time_unix_nano=at,
        count=value.count,
        sum=value.sum_seconds,
        bucket_counts=list(value.counts),
        explicit_bounds=list(BUCKETS),
        min=None,  # type: ignore[arg-type]
        max=None,  # type: ignore[arg-type]
    )


def _labels(metric: Metric, sample: Sample) -> dict[str, str]:
    """A lone surrogate, which somebody may have put into the name of a task, is no text."""
    return {
        name: value.encode(errors="replace").decode() for name, value in zip(metric.labels, sample.labels, strict=True)
    }
