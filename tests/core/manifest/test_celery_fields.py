"""Groups with ``worker: celery``: what it is told, and what it is not asked for because it could not do it."""

from __future__ import annotations

import pytest

from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.planning import spec_diff
from fleet.core.spec import digest
from fleet.errors import Refused
from tests.core.manifest.test_group_fields import HEAD, problems, spec_of

CELERY = "worker: celery, queues: [a], replicas: 1"
TEN = f"{CELERY}, pool: {{type: prefork, concurrency: 10}}"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("worker: celery, replicas: 1, queues: {a: {priority: 5}, b: {}}", "queues.a.priority"),
        (f"{CELERY}, task: {{deadLetters: fleet}}", "task.deadLetters"),
        (f"{CELERY}, task: {{maxAttempts: 2}}", "task.maxAttempts"),
        (f"{TEN}, task: {{prefetch: 5}}", "task.prefetch"),
        (f"{TEN}, task: {{prefetch: 25}}", "task.prefetch"),
        (f"{CELERY}, pool: {{type: prefork, concurrency: 10, minConcurrency: 11}}", "pool.minConcurrency"),
        (f"{CELERY}, pool: {{type: threads, concurrency: 10, minConcurrency: 3}}", "pool.minConcurrency"),
        ("queues: [a], replicas: 1, pool: {type: prefork, minConcurrency: 3}", "pool.minConcurrency"),
    ],
)
def test_what_it_cannot_do_is_told_with_its_place(fields: str, path: str) -> None:
    assert [(line, where) for line, where, _ in problems(fields)] == [(8, f"spec.groups.a.{path}")]


@pytest.mark.parametrize("prefetch", [10, 20, 100])
def test_a_whole_multiple_of_its_slots_can_be_held(prefetch: int) -> None:
    assert spec_of(f"{TEN}, task: {{prefetch: {prefetch}}}").task.prefetch == prefetch


def test_messages_are_compared_with_slots_that_only_the_machine_or_the_app_tells() -> None:
    manifest = parse([Source("m", f"{HEAD}    a: {{{CELERY}, task: {{prefetch: 10}}}}\n")], environ={}).manifest
    assert expand(manifest, facts=Facts(cpus=5)).groups["a"].spec.task.prefetch == 10
    with pytest.raises(Refused, match="with 4 slots cannot hold 10 messages") as caught:
        expand(manifest, facts=Facts(cpus=4))
    assert caught.value.hint == "write a multiple of 4: 8"


def test_slots_that_it_gives_up_by_itself_restart_it_and_are_named_by_the_plan() -> None:
    before = spec_of(TEN)
    after = spec_of(TEN.replace("concurrency: 10", "concurrency: 10, minConcurrency: 3"))
    assert digest(after) != digest(before)
    assert spec_diff.changes(before, after) == ("pool.minConcurrency none -> 3",)
