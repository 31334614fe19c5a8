"""What a pod tells of its replicas, over HTTP: to a scaler, to Prometheus, and to no more callers than it can bear."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from fleet.operate.http_server import MOST_AT_ONCE
from fleet.operate.metrics.catalogue import METRICS
from fleet.operate.pod_server import PodReader, PodServer
from fleet.replica.pod_records import RECORD_VARIABLE, RECORDS_VARIABLE, records_of_pod
from fleet.replica.pod_report import METRICS_PATH, PATH, PodReport, report_of
from fleet.replica.record import Record
from fleet.replica.task_counters import TaskCounters, counters_path
from tests.conftest import eventually


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's process, for a record of one that ends."""
    with subprocess.Popen(["sleep", "1000"]) as made:
        yield made
        made.kill()


def made(folder: Path, index: int, *, pid: int | None = None, slots: int = 2) -> Record:
    record = Record(folder / f"solo.{index}.rec", digest="abc", slots=slots, pid=pid)
    record.line_up = True
    record.become("ready")
    return record


def reader(folder: Path, *, several: bool = True) -> PodReader:
    variables = {RECORDS_VARIABLE: str(folder / "solo")}
    return PodReader("shop", lambda: records_of_pod(variables), several=several)


def told(reader: PodReader) -> PodReport:
    report = reader.report()
    assert report is not None
    return report


def test_the_replicas_of_a_pod_are_those_with_records_of_the_group(tmp_path: Path) -> None:
    for name in ("solo.1.rec", "solo.2.rec", "solo.1.starts", "solo.1.tasks", "other.1.rec", "fleet-controller.0.rec"):
        (tmp_path / name).touch()
    assert list(records_of_pod({RECORDS_VARIABLE: str(tmp_path / "solo")})) == ["solo.1", "solo.2"]
    own = tmp_path / "mail.rec"
    assert records_of_pod({RECORD_VARIABLE: str(own), RECORDS_VARIABLE: "x"}) == {"mail": own}
    assert records_of_pod({}) == {}


def test_what_replicas_do_is_added_up(tmp_path: Path) -> None:
    first, second = made(tmp_path, 1), made(tmp_path, 2, slots=3)
    first.begin(0, task_id="1", task_name="shop.mail")
    first.processed, first.retried, second.processed = 5, 1, 7
    first.waiting = 4
    first.beat()
    second.beat()
    second.become("draining")
    report = told(reader(tmp_path))
    assert (report.slots, report.busy, report.reserved, report.ended) == (5, 1, 5, 13)
    assert (report.state, report.counts) == ("ready", True)
    assert report_of(report.to_json()) == report


def test_nothing_is_told_while_no_worker_lives(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    whole = reader(tmp_path)
    assert whole.report() is None
    made(tmp_path, 1, pid=process.pid)
    assert told(whole).slots == 2
    process.kill()
    process.wait()
    assert whole.report() is None


def test_a_count_never_goes_back_when_a_replica_starts_again(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    whole = reader(tmp_path)
    stays, ends = made(tmp_path, 1), made(tmp_path, 2, pid=process.pid)
    stays.processed, ends.processed = 10, 100
    for record in (stays, ends):
        record.beat()
    assert told(whole).ended == 110
    process.kill()
    process.wait()
    assert (told(whole).ended, told(whole).slots) == (110, 2), "its slots are gone, what it did is done"
    again = made(tmp_path, 2)
    again.processed = 3
    again.beat()
    assert (told(whole).ended, told(whole).slots) == (113, 4)
    assert told(whole).pid == os.getpid(), "one meter for the whole pod"


def test_prometheus_reads_it_in_both_formats(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    record = made(tmp_path, 1)
    record.begin(0, task_id="1", task_name="shop.mail")
    record.processed, record.failed = 9, 2
    record.beat()
    counters = TaskCounters(counters_path(record.path))
    counters.ended("shop.mail", "done", 0.5)
    counters.publish()
    made(tmp_path, 2, pid=process.pid)
    process.kill()
    process.wait()
    body, _ = reader(tmp_path).metrics("")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert found["fleet_group_replicas_ready", "shop", "solo"] == 1
    assert found["fleet_group_slots", "shop", "solo"] == 2
    assert found["fleet_group_slots_busy", "shop", "solo"] == 1
    assert found["fleet_replica_ready", "shop", "solo", "solo.1"] == 1
    assert found["fleet_replica_ready", "shop", "solo", "solo.2"] == 0
    assert ("fleet_replica_slots", "shop", "solo", "solo.2") not in found
    assert found["fleet_replica_tasks_ended_total", "shop", "solo", "solo.1"] == 9
    assert found["fleet_replica_tasks_failed_total", "shop", "solo", "solo.1"] == 2
    assert found["fleet_tasks_total", "shop", "solo", "shop.mail", "done"] == 1
    text, kind = reader(tmp_path).metrics("application/openmetrics-text")
    assert kind.startswith("application/openmetrics-text")
    families = list(openmetrics.text_string_to_metric_families(text.decode()))
    known = {name.removesuffix("_total") for name in METRICS}
    assert families
    assert {family.name for family in families} <= known, "the names that a fleet on a host has"


def test_it_answers_what_it_knows_and_nothing_else(tmp_path: Path) -> None:
    record = made(tmp_path, 1)
    with PodServer(reader(tmp_path, several=False), port=0, host="127.0.0.1") as server:
        for path, status in ((PATH, 200), (METRICS_PATH, 200), ("/", 404), ("/report/x", 404)):
            with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == status
                if path == PATH:
                    assert json.loads(body)["pid"] == os.getpid()
    record.close()


def test_callers_who_say_nothing_cost_no_thread_each(tmp_path: Path) -> None:
    with PodServer(reader(tmp_path), port=0, host="127.0.0.1") as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MOST_AT_ONCE)]
        with closing(socket.create_connection(("127.0.0.1", server.port))) as late:
            assert late.recv(1) == b"", "one more is let go at once"
        for one in silent:
            one.close()

        def answers() -> bool:
            with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
                try:
                    connection.request("GET", METRICS_PATH)
                    return connection.getresponse().status == 200
                except OSError:
                    return False

        assert eventually(answers), "and then there is room again"
