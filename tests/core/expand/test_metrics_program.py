"""The program that serves metrics: there while the manifest asks for it, and never a reason to restart a worker."""

from __future__ import annotations

import pytest

from fleet.core.desired import METRICS_GROUP
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.plan import Action
from fleet.core.planning.planner import plan
from fleet.core.spec import digest
from tests.core.expand.test_expand import desired
from tests.core.texts import fleet, problems

GROUPS = """
groups:
  thumbs: {pool: solo, replicas: 1, queues: [thumbs]}
  mails: {worker: celery, pool: solo, replicas: 1, queues: [mails]}
  web: {command: [gunicorn, web], replicas: 1}
"""
LISTEN = "metrics: {listen: '127.0.0.1:9808'}\n"


def test_it_is_a_program_of_the_fleet_and_no_part_of_its_budget() -> None:
    group = desired(LISTEN + GROUPS).groups[METRICS_GROUP]
    assert group.spec.command[-5:] == ("metrics", "--fleet", "shop", "--listen", "127.0.0.1:9808")
    assert (group.system, group.replicas, group.slots) == (True, 1, 0)
    assert METRICS_GROUP not in desired(GROUPS).groups


def test_serving_metrics_restarts_no_worker() -> None:
    before, after = desired(GROUPS).groups, desired(LISTEN + GROUPS).groups
    assert all(digest(group.spec) == digest(after[name].spec) for name, group in before.items())


def test_counting_no_tasks_restarts_the_workers_that_count_them_and_nothing_else() -> None:
    before, after = desired(GROUPS).groups, desired("metrics: {tasks: false}\n" + GROUPS).groups
    changed = {name for name, group in before.items() if digest(group.spec) != digest(after[name].spec)}
    assert changed == {"thumbs", "mails"}


def test_it_goes_with_its_line_without_being_asked_to_prune() -> None:
    old = desired(LISTEN + GROUPS).groups[METRICS_GROUP]
    seen = ObservedReplica(METRICS_GROUP, 0, digest(old.spec), State.READY, pid=7, spec=old.spec)
    steps = plan(desired(GROUPS), Observed("shop", up=True, replicas={seen.name: seen})).steps
    (step,) = [one for one in steps if one.replica == seen.name]
    assert (step.action, step.reason) == (Action.DRAIN, "spec.metrics has neither listen nor otlp")


@pytest.mark.parametrize("listen", ["0.0.0.0:9808", "9808", "unix:relative"])
def test_a_wrong_address_is_said_where_it_stands(listen: str) -> None:
    (problem,) = problems(fleet("a: {pool: solo, replicas: 1}", more=f"  metrics: {{listen: '{listen}'}}\n"))
    assert problem.path == "spec.metrics.listen"
    assert problem.hint
