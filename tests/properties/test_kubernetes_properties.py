"""What must hold for the objects of every valid manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.backends.kubernetes import objects
from fleet.backends.kubernetes.jobs import is_selected, selectors_in
from fleet.backends.kubernetes.yaml_text import document_text, stream_text
from fleet.core.manifest.parse import from_document
from fleet.core.spec import WorkerSpec, digest
from tests.properties.manifests import TEXTS, manifests

VERSIONS = ("1.28", kubernetes_validate.latest_version())
"""The oldest that is promised, and the newest known."""
LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
CUSTOM = {"keda.sh/v1alpha1", "kustomize.config.k8s.io/v1beta1"}
SCALED_OBJECT = {
    *("scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount"),
    *("advanced", "triggers"),
}


def rendered(document: dict[str, Any]) -> list[dict[str, Any]]:
    made = objects.files(from_document(document, name="given").manifest, document)
    return [one for documents in made.values() for one in documents]


def of_kind(kind: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is the controller's own."""
    return [one for one in given if one["kind"] == kind and not is_controllers(one)]


def is_controllers(one: dict[str, Any]) -> bool:
    labels = one.get("metadata", {}).get("labels", {})
    return labels.get("app.kubernetes.io/component") == "controller"


def values(part: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    yield key, part
    for name, child in part.items() if isinstance(part, dict) else ():
        yield from values(child, name)
    for child in part if isinstance(part, list) else ():
        yield from values(child, key)


@settings(max_examples=20)
@given(manifests())
def test_every_object_is_one_that_kubernetes_takes(document: dict[str, Any]) -> None:
    for one in rendered(document):
        for version in VERSIONS if one["apiVersion"] not in CUSTOM else ():
            kubernetes_validate.validate(one, version, strict=True)


@settings(max_examples=20)
@given(manifests())
def test_names_labels_and_quantities_are_legal(document: dict[str, Any]) -> None:
    for one in rendered(document):
        for key, value in values(one):
            assert value is not None, f"{key} is null"
            if key in ("labels", "matchLabels") and isinstance(value, dict):
                assert all(LABEL_KEY.fullmatch(name) and LABEL_VALUE.fullmatch(text) for name, text in value.items())
            if key in ("requests", "limits") and isinstance(value, dict):
                assert all(QUANTITY.fullmatch(text) for text in value.values())
        assert one["kind"] == "Kustomization" or OBJECT_NAME.fullmatch(one["metadata"]["name"])
        assert "status" not in one


@settings(max_examples=20)
@given(manifests())
def test_kinds_and_names_are_unique_and_one_text_comes_from_one_manifest(document: dict[str, Any]) -> None:
    given = rendered(document)
    keys = [(one["kind"], one.get("metadata", {}).get("name")) for one in given]
    assert len(set(keys)) == len(keys)
    text = stream_text(given)
    assert text == stream_text(rendered(json.loads(json.dumps(document))))
    assert list(yaml.safe_load_all(text)) == given


@settings(max_examples=20)
@given(manifests())
def test_a_pod_reads_the_spec_that_its_digest_is_of(document: dict[str, Any]) -> None:
    given = rendered(document)
    specs = {one["metadata"]["name"]: one["data"]["spec.json"] for one in of_kind("ConfigMap", given)}
    sets = [*of_kind("Deployment", given), *of_kind("Job", given)]
    assert len(sets) == len(document["spec"]["groups"])
    for one in sets:
        template = one["spec"]["template"]
        mounted = template["spec"]["volumes"][0]["configMap"]["name"]
        spec = WorkerSpec.from_json(json.loads(specs[mounted]))
        assert mounted == f"{one['metadata']['labels']['app.kubernetes.io/instance']}-{digest(spec)}"
        assert spec.job == (one["kind"] == "Job")
        assert template["metadata"]["annotations"]["workerfleet.dev/digest"] == digest(spec)
        assert template["spec"]["terminationGracePeriodSeconds"] > spec.drain_timeout_seconds
        if not spec.job:
            assert one["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@settings(max_examples=20)
@given(manifests())
def test_every_pod_waits_for_exactly_the_jobs_that_its_group_depends_on(document: dict[str, Any]) -> None:
    given, groups = rendered(document), document["spec"]["groups"]
    every = of_kind("Job", given)
    for one in [*of_kind("Deployment", given), *every]:
        group = one["metadata"]["labels"]["app.kubernetes.io/name"]
        found = [[job for job in every if is_selected(job, selector)] for selector in selectors_in(one)]
        assert all(len(jobs) == 1 for jobs in found)
        names = {jobs[0]["metadata"]["labels"]["app.kubernetes.io/name"] for jobs in found}
        assert names == {name for name in groups[group].get("dependsOn", ()) if groups[name].get("job")}


@settings(max_examples=20)
@given(manifests())
def test_what_keda_scales_has_no_replicas_and_everything_else_has(document: dict[str, Any]) -> None:
    given = rendered(document)
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one for one in of_kind("ScaledObject", given)}
    authentications = {one["metadata"]["name"] for one in of_kind("TriggerAuthentication", given)}
    for one in of_kind("Deployment", given):
        assert ("replicas" in one["spec"]) != (one["metadata"]["name"] in scaled)
    for one in scaled.values():
        spec = one["spec"]
        assert set(spec) - {"fallback"} == SCALED_OBJECT
        assert 0 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] >= 1
        if document["spec"]["kubernetes"]["scaler"] == "fleet":
            (trigger,) = spec["triggers"]
            assert trigger["type"] == "metrics-api"
            assert all(isinstance(value, str) for value in trigger["metadata"].values())
            assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
            continue
        names = [trigger["name"] for trigger in spec["triggers"]]
        assert spec["advanced"]["scalingModifiers"]["formula"] == " + ".join(names)
        for trigger in spec["triggers"]:
            assert all(isinstance(value, str) for value in trigger["metadata"].values())
            assert trigger.get("authenticationRef", {}).get("name", one["metadata"]["name"]) == one["metadata"]["name"]
            assert ("authenticationRef" in trigger) == (one["metadata"]["name"] in authentications)


@settings(max_examples=20)
@given(manifests())
def test_slots_of_all_pods_stay_within_what_their_group_may_have(document: dict[str, Any]) -> None:
    given = rendered(document)
    specs = [json.loads(one["data"]["spec.json"]) for one in of_kind("ConfigMap", given)]
    slots_of = {spec["group"]: spec["pool"].get("concurrency", 1) for spec in specs}
    most = {one["metadata"]["name"]: one["spec"].get("replicas") for one in of_kind("Deployment", given)}
    most |= {one["metadata"]["name"]: one["spec"]["maxReplicaCount"] for one in of_kind("ScaledObject", given)}
    for name, group in document["spec"]["groups"].items():
        whole = f"{document['metadata']['name']}-{name}"
        for field in ("share", "autoscale"):
            if field in group:
                slots = slots_of[name]
                least = -(-group[field]["min"] // slots)
                assert most[whole] * slots <= max(group[field]["max"], least * slots)


@settings(max_examples=20)
@given(manifests())
def test_what_groups_fall_back_to_fits_the_budget(document: dict[str, Any]) -> None:
    document["spec"]["kubernetes"]["scaler"] = "fleet"
    given, slots = rendered(document), 0
    for one in of_kind("ScaledObject", given):
        spec = one["spec"]
        slots += spec["fallback"]["replicas"] * int(spec["triggers"][0]["metadata"]["targetValue"])
    assert slots <= document["spec"]["concurrency"]
    moves = bool(of_kind("ScaledObject", given))
    assert sum(one["kind"] == "Deployment" and is_controllers(one) for one in given) == moves


LEAVES = TEXTS | st.integers() | st.booleans()


@given(st.dictionaries(TEXTS, st.recursive(LEAVES, st.lists, max_leaves=5), min_size=1))
def test_text_is_read_back_as_it_was(value: dict[str, Any]) -> None:
    assert yaml.safe_load(document_text(value)) == value
