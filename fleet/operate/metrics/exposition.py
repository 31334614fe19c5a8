"""Samples as text: Prometheus' own format, or OpenMetrics for who asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric as Family
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector

from fleet.operate.metrics.catalogue import METRICS, Metric
from fleet.operate.metrics.samples import Sample
from fleet.replica.task_counters import BUCKETS, Histogram

_BOUNDS = (*(f"{bound:g}" if bound % 1 else f"{bound:.1f}" for bound in BUCKETS), "+Inf")


def text(samples: Iterable[Sample]) -> bytes:
    """In Prometheus' text format."""
    return generate_latest(_Families(samples))


def negotiated(samples: Iterable[Sample], accept: str) -> tuple[bytes, str]:
    """In the format that an Accept header asks for, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(_Families(samples)), content_type


class _Families(Collector):
    """What prometheus-client asks of a registry."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """Families in the order of the catalogue, those without a sample left out."""
        found: dict[str, Family] = {}
        for sample in self._samples:
            metric = METRICS[sample.metric]
            if metric.name not in found:
                found[metric.name] = Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
            _add(found[metric.name], metric, sample)
        return (found[name] for name in METRICS if name in found)


def _add(family: Family, metric: Metric, sample: Sample) -> None:
    labels = dict(zip(metric.labels, sample.labels, strict=True))
    if not isinstance(sample.value, Histogram):
        family.add_sample(metric.name, labels, sample.value)
        return
    total = 0
    for bound, count in zip(_BOUNDS, sample.value.counts, strict=True):
        total += count
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, total)
    family.add_sample(f"{metric.name}_count", labels, total)
    family.add_sample(f"{metric.name}_sum", labels, sample.value.sum_seconds)
