"""``task.lookAhead``: a word or a map, and what becomes of it in the spec, the plan and the digest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.planning.spec_diff import changes
from fleet.core.spec import TaskPolicy, WorkerSpec, digest
from fleet.errors import ManifestError

MANIFEST = """
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: ahead}
spec:
  app: shop.worker:app
  broker: {url: "redis://localhost:6379/0"}
  groups:
    mail: {worker: %s, pool: solo, replicas: 1, queues: [mail], task: {%s}}
"""


def spec_of(task: str, *, worker: str = "fleet") -> WorkerSpec:
    facts = Facts(cpus=4, python="/opt/python3", own_python="/opt/python3", own_version="0.1", workdir="/srv/shop")
    manifest = parse([Source("fleet.yaml", (MANIFEST % (worker, task)).encode())], environ={}).manifest
    return dict(expand(manifest, facts=facts).groups)["mail"].spec


@pytest.mark.parametrize(
    ("written", "most", "seconds"),
    [
        ("", 64, 0.01),
        ("lookAhead: auto", 64, 0.01),
        ('lookAhead: "off"', 0, 0.01),
        ("lookAhead: {most: 5}", 5, 0.01),
        ("lookAhead: {time: 20ms, most: 5}", 5, 0.02),
    ],
)
def test_it_is_a_word_or_a_map(written: str, most: int, seconds: float) -> None:
    task = spec_of(written).task
    assert (task.look_ahead_most, task.look_ahead_seconds) == (most, seconds)


@pytest.mark.parametrize(
    ("written", "place", "message"),
    [
        ("lookAhead: sometimes", "spec.groups.mail.task.lookAhead", "unknown lookAhead 'sometimes'"),
        ("lookAhead: {time: 0s}", "spec.groups.mail.task.lookAhead.time", "must be more than 0"),
        ("lookAhead: {many: 5}", "spec.groups.mail.task.lookAhead.many", "unknown field 'many'"),
    ],
)
def test_a_mistake_is_named_with_its_place(written: str, place: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        spec_of(written)
    assert f"{place}: {message}" in str(caught.value)


@pytest.mark.parametrize("written", ["lookAhead: auto", "lookAhead: {most: 5}"])
def test_celerys_worker_has_none(written: str) -> None:
    with pytest.raises(ManifestError, match="celery's worker cannot honour lookAhead"):
        spec_of(written, worker="celery")
    assert spec_of('lookAhead: "off"', worker="celery").task.look_ahead_most == 0


def test_a_plan_shows_it_and_nothing_restarts() -> None:
    before = spec_of("")
    after = replace(before, task=TaskPolicy(look_ahead_seconds=0.02, look_ahead_most=0))
    assert digest(before) == digest(after)
    assert changes(before, after) == ("task.lookAhead.most 64 -> 0", "task.lookAhead.time 10ms -> 20ms")
