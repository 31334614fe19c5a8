"""Samples as text: Prometheus' own format, or OpenMetrics for who asks for it.

Written here because prometheus-client takes ten to fifteen microseconds per sample, which for two hundred replicas is
more than all else that a scrape does. The tests read what is written here with its parsers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from math import isfinite

from fleet.operate.metrics.catalogue import METRICS, Metric
from fleet.operate.metrics.samples import Sample
from fleet.replica.task_counters import BUCKETS, Histogram

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text"
OPEN_METRICS_TYPE = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"
_BOUNDS = (*(repr(float(bound)) for bound in BUCKETS), "+Inf")
MOST_SERIES = 1 << 16
"""So many names with their labels are kept as text from one scrape to the next: those of some 2,500 replicas."""


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
    families: dict[str, list[str]] = {}
    for metric, labels, value in samples:
        lines = families.get(metric)
        if lines is None:
            lines = families[metric] = []
        if isinstance(value, Histogram):
            lines += _histogram_lines(metric, labels, value)
        else:
            lines.append(_series(metric, labels) + _shown(value))
    parts = [line for name in METRICS if name in families for line in (*_head(METRICS[name], is_open), *families[name])]
    return ("\n".join([*parts, *(["# EOF"] if is_open else [])]) + "\n").encode()


def _head(metric: Metric, is_open: bool) -> tuple[str, str]:
    name = metric.name.removesuffix("_total") if is_open and metric.kind == "counter" else metric.name
    return f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"


@lru_cache(maxsize=MOST_SERIES)
def _series(metric: str, labels: tuple[str, ...]) -> str:
    """All of a line but its value."""
    return f"{metric}{{{_inside(METRICS[metric].labels, labels)}}} "


@lru_cache(maxsize=MOST_SERIES // 8)
def _inside(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    whole = value.encode(errors="replace").decode()  # a lone surrogate is no text
    return whole.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _histogram_lines(metric: str, labels: tuple[str, ...], value: Histogram) -> Iterator[str]:
    *buckets, count, total = _series_of_histogram(metric, labels)
    runs = list(accumulate(value.counts))
    for series, number in zip(buckets, runs, strict=True):
        yield f"{series}{number}"
    yield f"{count}{runs[-1]}"
    yield f"{total}{_shown(value.sum_seconds)}"


@lru_cache(maxsize=MOST_SERIES // 8)
def _series_of_histogram(metric: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The same of each bucket, of the count and of the sum."""
    inside = _inside(METRICS[metric].labels, labels)
    buckets = (f'{metric}_bucket{{{inside},le="{bound}"}} ' for bound in _BOUNDS)
    return (*buckets, f"{metric}_count{{{inside}}} ", f"{metric}_sum{{{inside}}} ")


def _shown(value: float) -> str:
    number = float(value)
    return repr(number) if isfinite(number) else "NaN" if number != number else "+Inf" if number > 0 else "-Inf"
