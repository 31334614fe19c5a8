"""Health checks and ``waitFor``: what they mean for a replica, where mistakes are told, and that nothing restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.core.desired import HEALTH_GROUP, Desired
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.plan import Action
from fleet.core.planning import spec_diff
from fleet.core.planning.planner import plan
from fleet.core.spec import HealthCheckSpec, WaitSpec, WorkerSpec, digest, given_fields, live_digest
from tests.core.manifest.test_group_fields import COMMAND, HEAD, WORKER, problems, spec_of

CELERY = f"worker: celery, {WORKER}"
REQUEST = HealthCheckSpec(port=8000)
FIELDS = [
    ("health: {command: [check, --all]}", HealthCheckSpec(("check", "--all")), WaitSpec(), ["health.command"]),
    ("health: {http: {port: 8000}}", REQUEST, WaitSpec(), ["health.http none -> / at port 8000"]),
    (
        "health: {http: {port: 8000, path: '/h?a=b', host: shop.org}, interval: 3s, timeout: 1s, failures: 1}",
        replace(REQUEST, path="/h?a=b", host="shop.org", interval_seconds=3.0, timeout_seconds=1.0, failures=1),
        WaitSpec(),
        ["health.http", "health.interval 10s -> 3s", "health.timeout 5s -> 1s", "health.failures 3 -> 1"],
    ),
    (
        "health: {http: {port: 8000}, readyTimeout: 2m}",
        replace(REQUEST, within_seconds=120.0),
        WaitSpec(),
        ["health.http", "health.readyTimeout 1m -> 2m"],
    ),
    ("waitFor: ['tcp://db:5432']", HealthCheckSpec(), WaitSpec(("tcp://db:5432",)), ["waitFor none -> tcp://db:5432"]),
    (
        "waitFor: {urls: ['postgres://u:p@db/x?sslmode=on', 'http://u:p@api/ready?deep=1'], timeout: 5s}",
        HealthCheckSpec(),
        WaitSpec(("postgres://db/x", "http://api/ready?deep=1"), 5.0),
        ["waitFor none -> postgres://db/x, http://api/ready?deep=1", "waitFor.timeout 1m -> 5s"],
    ),
]


@pytest.mark.parametrize("base", [COMMAND, WORKER, CELERY])
@pytest.mark.parametrize(("field", "check", "wait", "said"), FIELDS)
def test_it_reaches_the_replica_without_a_restart_and_is_named_by_the_plan(
    base: str, field: str, check: HealthCheckSpec, wait: WaitSpec, said: list[str]
) -> None:
    before, after = spec_of(base), spec_of(f"{base}, {field}")
    assert after == replace(before, health_check=check, wait_for=wait)
    assert digest(after) == digest(before)
    assert live_digest(after) != live_digest(before)
    assert WorkerSpec.from_json(after.to_json()) == after
    assert WorkerSpec.from_json(given_fields(after)) == after
    changes = spec_diff.changes(before, after)
    assert [change.startswith(start) for change, start in zip(changes, said, strict=True)] == [True] * len(said)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("health: {command: [check], http: {port: 1}}", "health.http"),
        ("health: {command: []}", "health.command"),
        ("health: {command: ['']}", "health.command[0]"),
        ("health: {http: {}}", "health.http.port"),
        ("health: {http: {port: 0}}", "health.http.port"),
        ("health: {http: {port: 1, path: ready}}", "health.http.path"),
        ('health: {http: {port: 1, path: "/a\\r\\nX: y"}}', "health.http.path"),
        ('health: {http: {port: 1, host: "a\\r\\nX: y"}}', "health.http.host"),
        ("health: {interval: 5s}", "health.interval"),
        ("health: {timeout: 5s}", "health.timeout"),
        ("health: {failures: 2}", "health.failures"),
        ("health: {command: [check], failures: 0}", "health.failures"),
        ("health: {command: [check]}, job: true", "health.command"),
        ("health: {http: {port: 1}}, job: true", "health.http"),
        ("waitFor: []", "waitFor"),
        ("waitFor: {timeout: 5s}", "waitFor.urls"),
        ("waitFor: [db]", "waitFor.urls[0]"),
        ("waitFor: ['tcp://db:1', 'tcp://db']", "waitFor.urls[1]"),
        ("waitFor: {urls: ['ftp://db']}", "waitFor.urls[0]"),
        ("waitFor: {urls: ['tcp://db:1'], timeout: 0s}", "waitFor.timeout"),
    ],
)
def test_a_mistake_is_told_with_its_place(fields: str, path: str) -> None:
    ((line, where, message),) = problems(f"{COMMAND}, {fields}")
    assert (line, where) == (8, f"spec.groups.a.{path}")
    assert message


def test_a_wrong_url_is_told_without_its_password() -> None:
    ((_, _, message),) = problems(f"{COMMAND}, waitFor: ['ftp://u:secret@db']")
    assert "secret" not in message


def desired(fields: str) -> Desired:
    manifest = parse([Source("m", f"{HEAD}    a: {{{COMMAND}{fields}}}\n")], environ={}).manifest
    return expand(manifest, facts=Facts(python="/py", own_python="/own", workdir="/srv"))


def test_the_program_that_makes_the_checks_is_there_while_a_group_has_one() -> None:
    with_check, without = desired(", health: {http: {port: 1}}"), desired(", health: {readyAfter: 2s}")
    group = with_check.groups[HEALTH_GROUP]
    assert (group.system, group.replicas, group.slots) == (True, 1, 0)
    assert HEALTH_GROUP not in without.groups

    seen = ObservedReplica(HEALTH_GROUP, 0, digest(group.spec), State.READY, pid=7, spec=group.spec)
    steps = plan(without, Observed("shop", up=True, replicas={seen.name: seen})).steps
    (step,) = [one for one in steps if one.replica == seen.name]
    assert (step.action, step.reason) == (Action.DRAIN, "no group has a health check")


def test_what_is_waited_for_is_added_to_the_time_until_it_must_be_ready() -> None:
    def seconds(fields: str) -> float:
        return desired(fields).groups["a"].ready_timeout_seconds

    assert seconds(", waitFor: {urls: ['tcp://db:1'], timeout: 5m}") == seconds("") + 300
