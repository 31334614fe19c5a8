"""Metrics to a collector: the samples of a scrape, each as OTLP has it."""

from __future__ import annotations

import pytest

from fleet.errors import Unreachable
from fleet.operate.metrics.catalogue import METRICS
from fleet.operate.metrics.otlp import MetricsSender
from fleet.operate.metrics.samples import Sample, samples
from fleet.replica.task_counters import BUCKETS
from tests.collector import collector, plain
from tests.operate.metrics.test_samples import RUN, everything, source

CUMULATIVE = 2


def test_every_metric_of_the_catalogue_arrives_with_its_kind_and_value() -> None:
    given = list(samples([everything()], [source()]))
    with collector() as receiver:
        MetricsSender(receiver.url).send(given)
        arrived = {metric.name: metric for metric in receiver.metrics()}
    assert set(arrived) == {name.removesuffix("_total") for name in METRICS}
    for name, metric in METRICS.items():
        seen = arrived[name.removesuffix("_total")]
        assert seen.description == metric.help
        assert seen.WhichOneof("data") == {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}[metric.kind]
        points = getattr(seen, seen.WhichOneof("data")).data_points
        expected = [one for one in given if one.metric == name]
        assert [plain(point.attributes) for point in points] == [
            dict(zip(metric.labels, one.labels, strict=True)) for one in expected
        ]
        if metric.kind != "histogram":
            assert [point.as_double for point in points] == [float(one.value) for one in expected]  # type: ignore[arg-type]


def test_counters_only_grow_and_histograms_have_their_buckets() -> None:
    with collector() as receiver:
        MetricsSender(receiver.url).send(samples([everything()]))
        arrived = {metric.name: metric for metric in receiver.metrics()}
    ends, run = arrived["fleet_tasks"].sum, arrived["fleet_task_run_seconds"].histogram
    assert (ends.is_monotonic, ends.aggregation_temporality, run.aggregation_temporality) == (True, *2 * (CUMULATIVE,))
    (point,) = run.data_points
    assert (point.count, point.sum) == (RUN.count, RUN.sum_seconds)
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == (list(RUN.counts), list(BUCKETS))
    assert not point.HasField("min")
    assert arrived["fleet_task_run_seconds"].unit == "s"
    assert arrived["fleet_replica_memory_bytes"].unit == "By"


def test_a_name_that_is_no_text_is_still_sent() -> None:
    with collector() as receiver:
        MetricsSender(receiver.url).send([Sample("fleet_tasks_total", ("shop", "a", "x\udc80", "done"), 1.0)])
        (metric,) = receiver.metrics()
    assert plain(metric.sum.data_points[0].attributes)["task"] == "x?"


def test_a_collector_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 does not take metrics"):
        MetricsSender("http://127.0.0.1:9").send([])
