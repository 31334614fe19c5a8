"""What differs between two objects, as people read it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.backends.kubernetes.object_plan import Deed, ObjectChange, ObjectPlan, conflicts_of, differences, text
from fleet.backends.kubernetes.rollout_state import rollout_state, trouble_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def object_of(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", **metadata}, "spec": spec}


@given(VALUES, VALUES)
def test_objects_differ_where_their_values_do(one: Any, other: Any) -> None:
    assert differences(object_of(one), object_of(one)) == ()
    found = differences(object_of(one), object_of(other))
    assert bool(found) == (json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)) or one == other


def test_what_the_server_writes_is_no_difference() -> None:
    before = {**object_of({}, uid="1", resourceVersion="5", generation=2, managedFields=[{}]), "status": {"x": 1}}
    after = object_of({}, uid="2", annotations={"deployment.kubernetes.io/revision": "3"})
    assert differences(before, after) == ()


@pytest.mark.parametrize(
    ("name", "value"), [("DB_PASSWORD", "hunter2"), ("URL", "redis://:hunter2@redis/0"), ("API_KEY", "hunter2")]
)
def test_what_looks_secret_is_masked(name: str, value: str) -> None:
    def spec(value: str) -> dict[str, Any]:
        return {"data": json.dumps({"env": [[name, value], ["LEVEL", "info"]]}) + "\n"}

    [found] = differences(object_of(spec("old")), object_of(spec(value)))
    assert found.path == f"spec.data.env.{name}"
    assert "hunter2" not in str(found)


def test_conflicts_name_the_field_and_its_owner() -> None:
    cause = {"message": 'conflict with "kubectl-edit" using apps/v1', "field": ".spec.replicas"}
    assert conflicts_of({"causes": [cause, cause]}) == ("spec.replicas is kubectl-edit's",)


def test_a_plan_counts_what_it_does() -> None:
    objects = (
        ObjectChange(Deed.CREATE, "ConfigMap", "a", "not there yet"),
        ObjectChange(Deed.KEEP, "Deployment", "b", "as wanted"),
        ObjectChange(Deed.LEAVE, "Deployment", "c", "group c is not in the manifest; --prune"),
    )
    shown = text(ObjectPlan("shop", "namespace shop of context prod", objects))
    assert "Deployment/b" not in shown
    assert "? Deployment/c  leave " in shown
    assert "3 objects: 1 to create, 0 to change, 0 to remove, 1 untouched, 1 left, not in the manifest" in shown


@pytest.mark.parametrize(
    ("status", "is_done"),
    [
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, True),
        ({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, False),  # not seen yet
        ({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}, False),  # an old one
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, False),
        ({}, False),
    ],
)
def test_a_deployment_is_rolled_out_once_all_new_pods_are_available_and_no_old_one_is_left(
    status: dict[str, int], is_done: bool
) -> None:
    deployment = {"metadata": {"name": "x", "generation": 2}, "spec": {"replicas": 2}, "status": status}
    assert rollout_state(deployment).is_done is is_done


def test_why_a_pod_does_not_run() -> None:
    def pod(**status: Any) -> dict[str, Any]:
        return {"metadata": {"name": "x"}, "status": status}

    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 3}}}
    assert trouble_of(pod(conditions=[unscheduled])) == "not on any node: 0/3 nodes are available"
    assert trouble_of(pod(containerStatuses=[waiting])) == "CrashLoopBackOff: exit code 3"
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert trouble_of(pod(containerStatuses=[creating])) == ""
    assert trouble_of({"metadata": {"name": "x"}}) == ""
