"""Tracing in the manifest: which replicas it concerns, what a change restarts, and what is refused."""

from __future__ import annotations

import pytest

from fleet.core.desired import METRICS_GROUP
from fleet.core.planning.spec_diff import changes
from fleet.core.spec import TracingSpec, digest
from tests.core.expand.test_expand import desired
from tests.core.texts import fleet, problems

GROUPS = """
groups:
  thumbs: {pool: solo, replicas: 1, queues: [thumbs]}
  mails: {worker: celery, pool: solo, replicas: 1, queues: [mails]}
  web: {command: [gunicorn, web], replicas: 1}
"""
ON = "tracing: {otlp: 'http://127.0.0.1:4318/', sample: 0.25}\n"


def test_it_is_off_until_it_is_written_and_an_empty_map_switches_it_on() -> None:
    assert desired(GROUPS).groups["thumbs"].spec.tracing == TracingSpec()
    assert desired("tracing: {}\n" + GROUPS).groups["thumbs"].spec.tracing == TracingSpec(on=True)


def test_it_concerns_fleets_own_workers_alone() -> None:
    before, after = desired(GROUPS).groups, desired(ON + GROUPS).groups
    changed = {name for name, group in before.items() if digest(group.spec) != digest(after[name].spec)}
    assert changed == {"thumbs"}
    assert after["thumbs"].spec.tracing == TracingSpec(True, "http://127.0.0.1:4318", 0.25)


def test_a_plan_says_what_changes() -> None:
    before, after = desired(GROUPS).groups["thumbs"].spec, desired(ON + GROUPS).groups["thumbs"].spec
    assert changes(before, after) == (
        "tracing off -> on",
        'tracing.otlp none -> "http://127.0.0.1:4318"',
        "tracing.sample none -> 0.25",
    )


def test_metrics_for_a_collector_are_a_program_of_the_fleet() -> None:
    otlp = "metrics: {otlp: 'http://127.0.0.1:4318', every: 30s}\n"
    command = desired(otlp + GROUPS).groups[METRICS_GROUP].spec.command
    assert command[-6:] == ("--fleet", "shop", "--otlp", "http://127.0.0.1:4318", "--every", "30s")
    both = "metrics: {listen: '127.0.0.1:9808', otlp: 'http://127.0.0.1:4318'}\n"
    command = desired(both + GROUPS).groups[METRICS_GROUP].spec.command
    assert command[-6:] == ("--listen", "127.0.0.1:9808", "--otlp", "http://127.0.0.1:4318", "--every", "60s")


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("tracing: {otlp: '127.0.0.1:4318'}", "spec.tracing.otlp"),
        ("tracing: {otlp: 'http://'}", "spec.tracing.otlp"),
        ("tracing: {otlp: 'http://host:port'}", "spec.tracing.otlp"),
        ("tracing: {otlp: 'grpc://host:4317'}", "spec.tracing.otlp"),
        ("tracing: {otlp: 'http://user:secret@host:4318'}", "spec.tracing.otlp"),
        ("tracing: {otlp: 'http://host:4318/v1/traces'}", "spec.tracing.otlp"),
        ("tracing: {otlp: 'http://host:4318?key=a'}", "spec.tracing.otlp"),
        ("tracing: {otlp: 'http://ho st:4318'}", "spec.tracing.otlp"),
        ("tracing: {otlp: [a]}", "spec.tracing.otlp"),
        ("tracing: {sample: 1.5}", "spec.tracing.sample"),
        ("tracing: {sample: .nan}", "spec.tracing.sample"),
        ("metrics: {otlp: 'host'}", "spec.metrics.otlp"),
        ("metrics: {every: 0s}", "spec.metrics.every"),
    ],
)
def test_what_cannot_be_meant_is_said_where_it_stands(written: str, path: str) -> None:
    (problem,) = problems(fleet("a: {pool: solo, replicas: 1}", more=f"  {written}\n"))
    assert problem.path == path
    assert "secret" not in problem.message
