"""The page about the shop on both targets names all that its manifest says, with the numbers of its objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "kubernetes-shop.md").read_text()
RENDERED = ROOT / "examples" / "07-kubernetes" / "rendered" / "production"
NAMES = frozenset({"groups", "team", "results", "stripe-key", "type"})
"""Keys that people choose, and those that a word stands for."""


def keys(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, below in value.items() if isinstance(value, dict) else ():
        yield (*path, str(key))
        yield from keys(below, (*path, str(key)))


def rows() -> str:
    """The first cells of the tables about the fleet and its groups."""
    part = PAGE.partition("## The fleet")[2].partition("## What Kubernetes does instead")[0]
    return "\n".join(line.split("|")[1] for line in part.splitlines() if line.startswith("| "))


def test_every_field_of_the_shop_has_a_row() -> None:
    spec = yaml.safe_load((ROOT / "manifests" / "prod.yaml").read_text())["spec"]
    said = set(re.findall(r"[A-Za-z][A-Za-z-]*", rows()))
    groups = set(spec["groups"])
    own = {path for path in keys(spec) if path[-1] not in NAMES | groups and not {"env", "secretEnv"} & {*path[:-1]}}
    missing = {".".join(path) for path in own if path[-1] not in said and "queues" not in path[:-1]}
    assert not missing
    assert groups - said == set()


def deployment(group: str) -> dict[str, Any]:
    every = yaml.safe_load_all((RENDERED / f"group-{group}.yaml").read_text())
    found: dict[str, Any] = next(one for one in every if one["kind"] == "Deployment")
    return found


@pytest.mark.parametrize(
    ("group", "path", "value", "words"),
    [
        ("thumbs", ("spec", "replicas"), 10, "10 pods"),
        ("mail", ("spec", "replicas"), 2, "2 pods of 5 slots"),
        ("stock", ("spec", "template", "spec", "terminationGracePeriodSeconds"), 90, "GracePeriodSeconds: 90"),
        ("beat", ("spec", "strategy"), {"type": "Recreate"}, "strategy: Recreate"),
    ],
)
def test_the_numbers_are_those_of_the_objects(group: str, path: tuple[str, ...], value: object, words: str) -> None:
    found: Any = deployment(group)
    for part in path:
        found = found[part]
    assert found == value
    assert words in PAGE


def test_the_slots_are_those_of_the_specs() -> None:
    for group, slots in (("mail", 5), ("webhooks", 10)):
        config = next(yaml.safe_load_all((RENDERED / f"group-{group}.yaml").read_text()))
        assert json.loads(config["data"]["spec.json"])["pool"]["concurrency"] == slots


def test_the_probe_and_the_scaler_are_those_of_the_objects() -> None:
    (container,) = deployment("thumbs")["spec"]["template"]["spec"]["containers"]
    startup = container["startupProbe"]
    assert f"{startup['failureThreshold']} tries every {startup['periodSeconds']} s" in PAGE
    assert (
        f"fails {['', 'once', 'twice', 'three', 'four'][container['livenessProbe']['failureThreshold']]} times" in PAGE
    )
    every = yaml.safe_load_all((RENDERED / "group-webhooks.yaml").read_text())
    scaled = next(one for one in every if one["kind"] == "ScaledObject")["spec"]
    assert f"{scaled['minReplicaCount']} to {scaled['maxReplicaCount']} pods of 10" in PAGE
