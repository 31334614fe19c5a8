"""From a reading to samples: every value, its labels, and that no label and no sum can get out of hand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.observed import Observed, ObservedReplica, RunningTask, State
from fleet.core.status import summarise
from fleet.operate.metrics.catalogue import METRICS
from fleet.operate.metrics.exposition import negotiated, text
from fleet.operate.metrics.reading import EventCounts, FleetReading, SourceReading
from fleet.operate.metrics.reference import page
from fleet.operate.metrics.samples import MOST_KINDS, Sample, by_group, samples
from fleet.replica.task_counters import BUCKETS, MOST_TASKS, OTHER, CountersView, Histogram, TaskCounts

PAGE = Path(__file__).parents[3] / "docs" / "monitoring" / "README.md"
NOW = 1_700_000_000.0
RUN = Histogram((8, *(0,) * len(BUCKETS)), 0.004)
TASK = TaskCounts.of((7, 1, 2, 3, 4, 5), RUN, RUN)

WORKER = ObservedReplica(
    group="thumbs",
    index=0,
    digest="abc",
    state=State.READY,
    pid=11,
    slots=4,
    busy=2,
    processed=9,
    failed=1,
    retried=2,
    busy_seconds=5.5,
    reserved=3,
    memory_bytes=1 << 20,
    cpu_seconds=2.5,
    uptime_seconds=100.0,
    tasks=(RunningTask("a", "shop.thumb", 3.0), RunningTask("b", "shop.thumb", 8.0)),
    counts=True,
)
COMMAND = ObservedReplica(group="web", index=0, digest="abc", state=State.FAILED, crashes=4)


def reading(*replicas: ObservedReplica, **fields) -> FleetReading:
    observed = Observed("shop", up=True, replicas={one.name: one for one in replicas})
    given = {"status": summarise(None, observed, revision=3), "observed": observed, "now": NOW, **fields}
    return FleetReading("shop", **given)


def values(*readings: FleetReading) -> dict[tuple[str, ...], float | Histogram]:
    found = list(samples(readings))
    by_name = {(one.metric, *one.labels): one.value for one in found}
    assert len(by_name) == len(found)
    return by_name


def everything() -> FleetReading:
    look = {"at": NOW - 5, "budget": 8, "squeezed": True}
    row = {"need": 1, "wants": 2, "share": 3, "gets": 4}
    return reading(
        WORKER,
        COMMAND,
        budget=8,
        good=2,
        tasks={"thumbs": {"shop.thumb": TASK}},
        counters={"thumbs.0": CountersView(3, 2)},
        dropped={"thumbs.0": 77},
        backlog=Backlog({"q": QueueSample(5, NOW - 30)}, {"thumbs.0": 3}),
        look={**look, "groups": {"thumbs": row}},
        events=EventCounts({"apply.ended": 1}, {("stuck", "started"): 2}, {("apply", "done"): 1}, {"thumbs": 6}),
    )


def source(**fields) -> SourceReading:
    document = {
        "ready": True,
        "running": True,
        "suspended": "",
        "conditions": [{"type": "Fetched", "status": "True"}],
        "failures": {"fetch": 1, "fleet": 0},
        "lookedAt": {"fetch": NOW, "fleet": NOW},
    }
    return SourceReading("shop", {**document, **fields})


def test_every_metric_of_the_catalogue_can_be_given() -> None:
    assert {one.metric for one in samples([everything()], [source()])} == set(METRICS)


def test_every_sample_has_the_labels_that_the_catalogue_names() -> None:
    for one in samples([everything()], [source()]):
        assert len(one.labels) == len(METRICS[one.metric].labels)


def test_a_worker_is_told_by_its_record() -> None:
    found, own = values(everything()), ("shop", "thumbs", "thumbs.0")
    assert found["fleet_replica_state", *own, "ready"] == 1
    assert found["fleet_replica_oldest_task_seconds", *own] == 8.0
    assert found["fleet_replica_start_time_seconds", *own] == NOW - 100
    assert found["fleet_replica_tasks_ended_total", *own] == 9
    assert found["fleet_replica_starts_total", *own] == 3
    assert found["fleet_queue_oldest_age_seconds", "shop", "q"] == 30
    assert found["fleet_tasks_total", "shop", "thumbs", "shop.thumb", "lost"] == 5


def test_what_counts_nothing_has_no_zero_in_its_place() -> None:
    found = values(everything())
    assert ("fleet_replica_tasks_ended_total", "shop", "web", "web.0") not in found
    assert ("fleet_replica_memory_bytes", "shop", "web", "web.0") not in found
    assert found["fleet_replica_crashes", "shop", "web", "web.0"] == 4


@pytest.mark.parametrize(
    ("sample", "messages", "age"),
    [
        (QueueSample(None, None), None, None),
        (QueueSample(0, None), 0, 0),
        (QueueSample(4, None), 4, None),
        (QueueSample(4, NOW + 9), 4, 0),
    ],
)
def test_what_is_not_known_of_a_queue_is_absent(sample: QueueSample, messages: int | None, age: float | None) -> None:
    found = values(reading(WORKER, backlog=Backlog({"q": sample}, None, "down")))
    assert found.get(("fleet_queue_messages", "shop", "q")) == messages
    assert found.get(("fleet_queue_oldest_age_seconds", "shop", "q")) == age
    assert found["fleet_broker_up", "shop"] == 0


def test_a_fleet_that_cannot_be_read_says_only_that() -> None:
    assert set(values(FleetReading("shop", problem="damaged"))) == {
        ("fleet_readable", "shop"),
        ("fleet_read_seconds", "shop"),
    }


def test_kinds_of_events_are_bounded() -> None:
    counts = EventCounts({f"kind.{number}": 1 for number in range(MOST_KINDS + 5)})
    found = [one for one in samples([reading(WORKER, events=counts)]) if one.metric == "fleet_events_total"]
    assert len(found) == MOST_KINDS + 1
    assert found[-1] == Sample("fleet_events_total", ("shop", OTHER), 5)


def done(count: int) -> TaskCounts:
    return TaskCounts.of((count, 0, 0, 0, 0, 0), Histogram((count, *(0,) * len(BUCKETS)), float(count)))


def test_counts_of_replicas_are_added_up() -> None:
    found = by_group([("a.0", {"t": done(1)}), ("a.1", {"t": done(2), "u": done(4)}), ("b.0", {"t": done(8)})])
    assert found == {"a": {"t": done(3), "u": done(4)}, "b": {"t": done(8)}}


@given(
    st.lists(
        st.dictionaries(st.integers(0, 3 * MOST_TASKS).map(str), st.integers(1, 99), max_size=MOST_TASKS),
        min_size=2,
        max_size=6,
    )
)
def test_no_sum_of_a_group_ever_decreases_whatever_comes(scrapes: list[dict[str, int]]) -> None:
    """Counts only grow from one scrape to the next, on any replica; so must what is shown of them, name by name."""
    counts: dict[str, TaskCounts] = {}
    before: dict[str, TaskCounts] = {}
    chosen: dict[str, tuple[str, ...]] = {}
    for grown in scrapes:
        counts = {name: counts.get(name, TaskCounts()) + done(grown.get(name, 0)) for name in counts.keys() | grown}
        half = {name: one for name, one in counts.items() if int(name) % 2}
        rest = {name: one for name, one in counts.items() if not int(name) % 2}
        shown = by_group([("g.0", half), ("g.1", rest)], chosen)["g"]
        chosen = {"g": tuple(shown)}
        assert len(shown) <= MOST_TASKS + 1
        assert sum(one.ends[0] for one in shown.values()) == sum(one.ends[0] for one in counts.values())
        for name, one in before.items():
            assert shown[name].ends[0] >= one.ends[0]
        before = shown


def test_both_formats_say_the_same_and_promtool_accepts_it() -> None:
    found = list(samples([everything()], [source()]))
    plain, (open_metrics, content_type) = text(found), negotiated(found, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    read = {(one.name, one.type): len(one.samples) for one in text_string_to_metric_families(plain.decode())}
    read_open = {
        (one.name, one.type): len(one.samples)
        for one in openmetrics.text_string_to_metric_families(open_metrics.decode())
    }
    assert read == read_open
    assert {name for name, _ in read} == {name.removesuffix("_total") for name in METRICS}
    subprocess.run(["promtool", "check", "metrics"], input=plain, check=True, capture_output=True)


def test_buckets_are_cumulative_and_end_with_all() -> None:
    run = Histogram((1, 2, *(0,) * (len(BUCKETS) - 2), 4), 9.5)
    raw = text([Sample("fleet_task_run_seconds", ("shop", "g", "t"), run)]).decode()
    counts = [float(found) for found in re.findall(r"_bucket\{.*\} (\S+)", raw)]
    assert counts == [1, 3, *[3] * (len(BUCKETS) - 2), 7]
    assert 'le="+Inf"' in raw
    assert "_count{" in raw
    assert "} 9.5" in raw


def test_hostile_names_stay_inside_their_quotes() -> None:
    name = 'a"} 1\nfleet_up{fleet="x\\'
    raw = text([Sample("fleet_tasks_total", ("shop", "g", name, "done"), 1.0)])
    (family,) = text_string_to_metric_families(raw.decode())
    assert [one.labels["task"] for one in family.samples] == [name]
    subprocess.run(["promtool", "check", "metrics"], input=raw, check=True, capture_output=True)


@given(st.text(max_size=40), st.floats())
def test_any_label_and_value_is_read_back(name: str, number: float) -> None:
    sample = Sample("fleet_tasks_total", ("shop", "g", name, "done"), number)
    for raw, read in (
        (text([sample]), text_string_to_metric_families),
        (negotiated([sample], "application/openmetrics-text")[0], openmetrics.text_string_to_metric_families),
    ):
        if number < 0 or (number != number and read is not text_string_to_metric_families):
            continue  # no counter is, and OpenMetrics says so
        (family,) = read(raw.decode())
        (found,) = family.samples
        assert found.labels["task"] == name
        assert found.value == number or number != number


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("text/plain;version=0.0.4;q=0.6, application/openmetrics-text;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=many", False),
    ],
)
def test_the_format_is_the_one_that_is_preferred(accept: str, is_open: bool) -> None:
    body, content_type = negotiated([Sample("fleet_up", ("shop",), 1.0)], accept)
    assert content_type.startswith("application/openmetrics-text") == is_open
    assert body.endswith(b"# EOF\n") == is_open


def test_the_page_names_every_metric() -> None:
    assert page(PAGE.read_text()) == PAGE.read_text(), (
        "run: python -m fleet.operate.metrics.reference docs/monitoring/README.md"
    )
