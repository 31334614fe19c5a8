"""Samples as text: Prometheus' own format, or OpenMetrics for who asks for it.

Written here because prometheus-client takes ten to fifteen microseconds per sample, which for two hundred replicas is
more than all else that a scrape does. The tests read what is written here with its parsers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite

from fleet.operate.metrics.catalogue import METRICS, Metric
from fleet.operate.metrics.samples import Sample
from fleet.replica.task_counters import BUCKETS, Histogram

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text"
OPEN_METRICS_TYPE = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"
_BOUNDS = (*(repr(float(bound)) for bound in BUCKETS), "+Inf")
_Labels = dict[tuple[tuple[str, ...], tuple[str, ...]], str]


def text(samples: Iterable[Sample]) -> bytes:
    """In Prometheus' text format."""
    return _written(samples, is_open=False)


def negotiated(samples: Iterable[Sample], accept: str) -> tuple[bytes, str]:
    """In the format that an Accept header prefers, and its content type."""
    if _prefers_open_metrics(accept):
        return _written(samples, is_open=True), OPEN_METRICS_TYPE
    return _written(samples, is_open=False), TEXT_TYPE


def _prefers_open_metrics(accept: str) -> bool:
    weights = {"": 0.0, OPEN_METRICS: 0.0, "text/plain": 0.0}
    for one in accept.split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if kind in weights:
            weights[kind] = max(weights[kind], _number(weight))
    return weights[OPEN_METRICS] > 0 and weights[OPEN_METRICS] >= weights["text/plain"]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return 0.0


def _written(samples: Iterable[Sample], *, is_open: bool) -> bytes:
    """Families in the order of the catalogue; those without a sample are left out."""
    labels: _Labels = {}
    families: dict[str, list[str]] = {}
    for sample in samples:
        metric = METRICS[sample.metric]
        key = (metric.labels, sample.labels)
        inside = labels.get(key) or labels.setdefault(key, _inside(*key))
        lines = families.setdefault(metric.name, [])
        if isinstance(sample.value, Histogram):
            lines += _histogram_lines(metric.name, inside, sample.value)
        else:
            lines.append(f"{metric.name}{{{inside}}} {_shown(sample.value)}")
    parts = [line for name in METRICS if name in families for line in (*_head(METRICS[name], is_open), *families[name])]
    return ("\n".join([*parts, *(["# EOF"] if is_open else [])]) + "\n").encode()


def _head(metric: Metric, is_open: bool) -> tuple[str, str]:
    name = metric.name.removesuffix("_total") if is_open and metric.kind == "counter" else metric.name
    return f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"


def _inside(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    whole = value.encode(errors="replace").decode()  # a lone surrogate is no text
    return whole.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _histogram_lines(name: str, inside: str, value: Histogram) -> Iterator[str]:
    total = 0
    for bound, count in zip(_BOUNDS, value.counts, strict=True):
        total += count
        yield f'{name}_bucket{{{inside},le="{bound}"}} {total}'
    yield f"{name}_count{{{inside}}} {total}"
    yield f"{name}_sum{{{inside}}} {_shown(value.sum_seconds)}"


def _shown(value: float) -> str:
    number = float(value)
    return repr(number) if isfinite(number) else "NaN" if number != number else "+Inf" if number > 0 else "-Inf"
