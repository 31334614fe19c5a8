"""What a pod waits for: the process that runs before the worker's, and which Jobs it means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fleet import wait_for_jobs
from fleet.backends.kubernetes import jobs, objects
from fleet.backends.kubernetes.client import Cluster, Place
from fleet.core.manifest.parse import from_document
from fleet.errors import FleetError
from tests.backends.kubernetes.stand_in import StandIn
from tests.conftest import eventually

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: shop:app
  broker: {{url: "redis://redis/0"}}
  kubernetes: {{image: "{image}", namespace: shop}}
  groups:
    migrate: {{command: [python, {script}], job: true{more}}}
    seed: {{command: [python, seed.py], job: true, dependsOn: [migrate]}}
    web: {{pool: solo, replicas: 2, queues: [web], env: {{A: "{web}"}}, dependsOn: [migrate, seed]}}
    mail: {{pool: solo, replicas: 1, queues: [mail]}}
"""


def rendered(**said: str) -> list[dict[str, Any]]:
    text = MANIFEST.format(**{"image": "shop:1", "script": "migrate.py", "more": "", "web": "1", **said})
    made = objects.files(from_document(yaml.safe_load(text), name="given").manifest)
    return [one for documents in made.values() for one in documents]


def named(group: str, made: list[dict[str, Any]]) -> dict[str, Any]:
    """The Deployment or Job of a group."""
    own = [one for one in made if one.get("metadata", {}).get("labels", {}).get("app.kubernetes.io/name") == group]
    return next(one for one in own if one["kind"] in ("Deployment", "Job"))


def test_every_wait_means_exactly_the_job_of_this_version() -> None:
    made = rendered()
    every = [one for one in made if one["kind"] == "Job"]
    for group, waits in {"web": 2, "seed": 1, "mail": 0, "migrate": 0}.items():
        selectors = list(jobs.selectors_in(named(group, made)))
        assert len(selectors) == waits
        assert all(sum(jobs.is_selected(job, selector) for job in every) == 1 for selector in selectors)


@pytest.mark.parametrize(
    ("change", "other_jobs", "other_pods"),
    [
        ({"web": "2"}, {"migrate", "seed"}, {"web"}),
        ({"script": "other.py"}, {"migrate"}, set()),
        ({"image": "shop:2"}, {"migrate", "seed"}, {"web", "mail"}),
        ({"more": ", paused: true"}, set(), set()),
    ],
)
def test_what_changes_runs_again_and_nothing_else(
    change: dict[str, str], other_jobs: set[str], other_pods: set[str]
) -> None:
    before, after = rendered(), rendered(**change)
    names = {group: (named(group, before), named(group, after)) for group in ("migrate", "seed", "web", "mail")}
    differ = {group for group, (old, new) in names.items() if old["metadata"]["name"] != new["metadata"]["name"]}
    pods = {group for group in ("web", "mail") if names[group][0]["spec"] != names[group][1]["spec"]}
    assert (differ, pods) == (other_jobs, other_pods)


def test_jobs_and_who_may_see_them_are_what_kubernetes_takes() -> None:
    made = rendered(more=", restart: {policy: onFailure, maxCrashes: 3}")
    for one in made:
        if one["apiVersion"] != "kustomize.config.k8s.io/v1beta1":
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    assert named("migrate", made)["spec"]["backoffLimit"] == 3
    assert named("seed", made)["spec"]["backoffLimit"] == 0
    containers = [named(group, made)["spec"]["template"]["spec"] for group in ("migrate", "web")]
    assert all("token" not in str(one["containers"]) for one in containers), "the worker itself may not ask the API"
    mail = named("mail", made)["spec"]["template"]["spec"]
    assert "initContainers" not in mail
    assert [one["name"] for one in mail["volumes"]] == ["spec", "state"]


def test_without_a_job_nobody_may_see_any() -> None:
    text = MANIFEST.format(image="shop:1", script="x", more="", web="1")
    document = yaml.safe_load(text)
    for group in ("migrate", "seed", "web"):
        del document["spec"]["groups"][group]
    made = objects.files(from_document(document, name="given").manifest)
    assert {one["kind"] for documents in made.values() for one in documents}.isdisjoint({"Role", "RoleBinding", "Job"})


# --- the process that waits


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StandIn, Cluster]]:
    with StandIn() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path / "kubeconfig")))
        yield api, Cluster(Place("here", "shop"))


def created(cluster: Cluster, made: list[dict[str, Any]]) -> None:
    for one in made:
        if one["kind"] == "Job":
            cluster.create(wait_for_jobs.JOB, one)


def test_it_waits_for_the_job_of_its_version_and_says_for_which(cluster: tuple[StandIn, Cluster]) -> None:
    api, door = cluster
    old, new = rendered(web="1"), rendered(web="2", image="shop:2")
    api.failing_images.add("shop:2")
    selectors = list(jobs.selectors_in(named("web", new)))
    said: list[str] = []
    steps = iter(
        [
            lambda: created(door, old),  # complete, and not what is waited for
            lambda: created(door, new),  # the first of them fails
            lambda: (api.failing_images.clear(), again()),
        ]
    )

    def again() -> None:
        for one in new:
            if one["kind"] == "Job":
                door.delete(wait_for_jobs.JOB, one["metadata"]["name"])
        created(door, new)

    def sleep(_: float) -> None:
        if (step := next(steps, None)) is not None:
            step()

    wait_for_jobs.wait(door, selectors, say=said.append, sleep=sleep)
    assert any("there is none yet" in line for line in said)
    assert all("which failed" in line or "none yet" in line or "waiting for Job shop-" in line for line in said)
    assert {one["metadata"]["name"] for one in new if one["kind"] == "Job"} <= set(api.names("jobs"))


def test_a_later_run_that_fails_keeps_no_pod_of_a_version_away_for_which_one_was_complete(
    cluster: tuple[StandIn, Cluster],
) -> None:
    api, door = cluster
    made = rendered()
    created(door, made)
    selectors = list(jobs.selectors_in(named("web", made)))
    wait_for_jobs.wait(door, selectors, say=str, sleep=lambda _: None)
    api.failing_images.add("shop:2")
    job = named("migrate", made)
    again = yaml.safe_load(yaml.safe_dump(job).replace("shop:1", "shop:2"))
    again["metadata"] = {**job["metadata"], "name": "shop-migrate-again"}
    door.create(wait_for_jobs.JOB, again)
    eventually(lambda: jobs.failure(api.get("jobs", "shop-migrate-again") or {}))
    wait_for_jobs.wait(door, selectors, say=str, sleep=lambda _: None)


def test_it_goes_on_while_the_api_server_is_away_and_ends_where_it_may_not_look(
    cluster: tuple[StandIn, Cluster],
) -> None:
    api, door = cluster
    made = rendered()
    created(door, made)
    selector = next(jobs.selectors_in(named("web", made)))
    api.forbidden.add(("list", "jobs"))
    with pytest.raises(FleetError, match="may not list jobs"):
        wait_for_jobs.wait(door, [selector], say=str, sleep=lambda _: None)
    assert wait_for_jobs.main([]) == 64
    assert wait_for_jobs.main([selector]) == 1, "no pod, no token"
