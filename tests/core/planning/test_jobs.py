"""Jobs in a plan: before what depends on them, again when that changes, never by healing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.core.desired import Desired
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.healing.kinds import kind_of
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.plan import Action, Plan
from fleet.core.planning.planner import plan
from fleet.core.planning.rollout import in_waves
from fleet.core.spec import digest
from fleet.core.status import summarise
from fleet.errors import ManifestError

HEAD = (
    "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\n"
    'spec:\n  heal: {mode: "off"}\n  release: {revision: "1"}\n  groups:\n'
)
JOB = "    migrate: {command: [migrate], job: true}\n"
WEB = "    web: {command: [serve], replicas: 2, dependsOn: {migrate: completed}}\n"


def desired(text: str = HEAD + JOB + WEB) -> Desired:
    return expand(parse([Source("m", text)], environ={}).manifest, facts=Facts())


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ManifestError) as caught:
        desired(text)
    return [(one.path, one.message) for one in caught.value.problems]


def seen(fleet: Desired, *, job: State = State.COMPLETED) -> Observed:
    replicas = {}
    for group in fleet.groups.values():
        for index in range(group.replicas):
            state = job if group.spec.job else State.READY
            pid = None if group.spec.job else 10 + index
            one = ObservedReplica(group.name, index, digest(group.spec), state, pid=pid, spec=group.spec)
            replicas[one.name] = one
    return Observed("shop", up=True, replicas=replicas)


def planned(fleet: Desired, observed: Observed) -> Plan:
    return in_waves(plan(fleet, observed), fleet, observed)


def test_what_depends_on_a_job_waits_for_its_end() -> None:
    steps = {step.replica: step for step in planned(desired(), Observed("shop")).changes}
    assert steps["migrate.0"].reason == "job: has not run yet"
    assert steps["web.0"].after == steps["web.1"].after == ("start migrate.0",)


def test_a_job_that_has_completed_is_as_wanted() -> None:
    fleet = desired()
    assert planned(fleet, seen(fleet)).is_empty
    status = summarise(fleet, seen(fleet), revision=1)
    assert status.ready
    assert not status.drifted
    assert status.groups["migrate"].up_to_date_replicas == 1


@pytest.mark.parametrize(
    ("new", "again"),
    [
        (HEAD.replace('"1"', '"2"') + JOB + WEB, True),
        (HEAD + JOB.replace("[migrate]", "[migrate, all]") + WEB, True),
        (HEAD + JOB + WEB.replace("[serve]", "[serve, better]"), True),
        (HEAD + JOB + WEB.replace("replicas: 2", "replicas: 3"), False),
        (HEAD + JOB + WEB + "    other: {command: [x], replicas: 1}\n", False),
    ],
)
def test_it_runs_again_before_what_depends_on_it_changes(new: str, again: bool) -> None:
    fleet = desired(new)
    steps = {step.replica: step for step in planned(fleet, seen(desired())).changes}
    assert ("migrate.0" in steps) is again
    if again and "web.0" in steps:
        assert steps["migrate.0"].wave < steps["web.0"].wave


def test_a_job_that_failed_runs_again_at_the_next_apply_and_is_not_healed() -> None:
    fleet = desired()
    failed = seen(fleet, job=State.FAILED)
    (step,) = planned(fleet, failed).changes
    assert (step.replica, step.action) == ("migrate.0", Action.RESTART)
    assert kind_of(step, failed) is None


def test_healing_leaves_what_has_completed_alone() -> None:
    fleet = desired()
    for step in plan(fleet, seen(fleet)).steps:
        assert kind_of(step, seen(fleet)) is None


def test_a_job_takes_an_hour_where_nothing_is_said() -> None:
    assert desired().groups["migrate"].ready_timeout_seconds == 3600
    short = desired(HEAD + JOB.replace("true", "true, health: {readyTimeout: 5m}") + WEB)
    assert short.groups["migrate"].ready_timeout_seconds == 300


def test_the_commit_of_the_code_is_a_revision_for_a_job_only() -> None:
    text = HEAD.replace('  release: {revision: "1"}\n', "") + JOB + WEB
    manifest = parse([Source("m", text)], environ={}).manifest
    one, two = (expand(manifest, facts=replace(Facts(), commit=commit)).groups for commit in ("a", "b"))
    assert digest(one["migrate"].spec) != digest(two["migrate"].spec)
    assert digest(one["web"].spec) == digest(two["web"].spec)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (JOB.replace("true", "true, replicas: 2"), "spec.groups.migrate.replicas"),
        (JOB.replace("true", "true, restart: {policy: always}"), "spec.groups.migrate.restart.policy"),
        ("    web: {command: [x], replicas: 1, restart: {policy: sometimes}}\n", "spec.groups.web.restart.policy"),
        (WEB + "    migrate: {command: [x], replicas: 1}\n", "spec.groups.web.dependsOn.migrate.condition"),
        (JOB + WEB.replace("completed", "finished"), "spec.groups.web.dependsOn.migrate"),
        ("    w: {app: a:b, job: true}\n", "spec.groups.w.job"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, path: str) -> None:
    assert path in [where for where, _ in problems(HEAD + text)]
