"""What a rollout may say: shares that grow, what excludes what, and room for a second set."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.core.desired import CanaryPolicy, RolloutPolicy
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.errors import ManifestError

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: shop:app
  broker: {{url: "redis://localhost/0"}}
  concurrency: {slots}
  groups:
    a: {{pool: solo, replicas: {replicas}, rollout: {rollout}}}
    b: {{pool: solo, replicas: 2}}
"""


def text(rollout: str, *, slots: int = 40, replicas: int = 20) -> str:
    return MANIFEST.format(rollout=rollout, slots=slots, replicas=replicas)


def policy(rollout: str, **more: int) -> RolloutPolicy:
    parsed = parse([Source("fleet.yaml", text(rollout, **more).encode())], environ={})
    return expand(parsed.manifest, facts=Facts()).groups["a"].rollout


def problems(rollout: str, **more: int) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse([Source("fleet.yaml", text(rollout, **more).encode())], environ={})
    return [f"{one.path}: {one.message}" for one in caught.value.problems]


def test_shares_of_a_canary() -> None:
    said = policy("{canary: {for: 3m, steps: [{percent: 5, for: 1m}, {percent: 24, for: 5m}, {percent: 50}]}}")

    assert [(one.replicas, one.seconds, one.name) for one in said.canaries] == [
        (1, 60.0, "canary step 1 of 3"),
        (5, 300.0, "canary step 2 of 3"),
        (10, 180.0, "canary step 3 of 3"),
    ]
    assert said.on_failure == "rollback"


def test_a_canary_without_steps_is_one() -> None:
    assert policy("{canary: {percent: 10}}").canaries == (CanaryPolicy(2),)


@pytest.mark.parametrize(("written", "seconds"), [("true", 120.0), ("{for: 30s, judge: {latency: 3}}", 30.0)])
def test_blue_green_is_judged(written: str, seconds: float) -> None:
    said = policy(f"{{blueGreen: {written}}}")

    assert said.blue_green is not None
    assert (said.blue_green.seconds, said.blue_green.name, said.on_failure) == (seconds, "blue-green", "rollback")
    assert policy("{blueGreen: false}").blue_green is None


CASES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "shares that do not grow": (
        "{canary: {steps: [{percent: 25}, {percent: 25}]}}",
        {},
        ["rollout.canary.steps[1].percent: percent 25 is not more than the 25 of the step before"],
    ),
    "a step without a share": (
        "{canary: {steps: [{for: 1m}]}}",
        {},
        ["rollout.canary.steps[0]: the step has no share"],
    ),
    "two shares in one step": (
        "{canary: {steps: [{percent: 5, replicas: 1}]}}",
        {},
        ["rollout.canary.steps[0].percent: replicas and percent exclude each other"],
    ),
    "steps and a share": (
        "{canary: {percent: 5, steps: [{percent: 5}]}}",
        {},
        ["rollout.canary.percent: percent and steps exclude each other"],
    ),
    "two ways": (
        "{blueGreen: true, canary: {}}",
        {},
        ["rollout.canary: blueGreen and canary exclude each other"],
    ),
    "nothing to compare with": (
        "{strategy: recreate, canary: {}}",
        {},
        ["rollout.canary: with strategy recreate no old replica is left to compare with"],
    ),
    "no time": (
        "{deadline: 3m, canary: {steps: [{percent: 5, for: 1m}, {percent: 50}]}}",
        {},
        ["rollout.deadline: new and old ones are compared for 3m, and the deadline is 3m"],
    ),
    "no room": (
        "{blueGreen: true, peak: budget}",
        {"slots": 41},
        ["rollout.blueGreen: blueGreen needs 20 slots for a second set, and 19 of 41 are free"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused_with_its_place(case: str) -> None:
    rollout, more, expected = CASES[case]

    assert problems(rollout, **more) == [f"spec.groups.a.{one}" for one in expected]


def test_there_is_room_for_a_second_set() -> None:
    assert policy("{blueGreen: true, peak: budget}", slots=42).keeps_budget
    assert policy("{blueGreen: true}", slots=22).blue_green is not None
