"""What a fleet in a cluster must do, through the command line, on an API server (see conftest for which)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fleet.backends.kubernetes.client import Cluster, Place
from fleet.backends.kubernetes.kinds import DEPLOYMENT
from fleet.backends.kubernetes.leader import SECONDS, Leadership
from fleet.backends.kubernetes.names import DIGEST, RESTARTED
from fleet.operate.cluster.compare import HANDOVER_MANAGER
from tests.backends.kubernetes.conftest import CLOCK, JOBS, Desk, World
from tests.conftest import eventually


def test_a_plan_changes_nothing_and_an_apply_brings_pods_to_life(desk: Desk, world: World) -> None:
    planned = desk.planned()
    assert planned["Deployment/shop-mail"]["action"] == "create"
    assert world.names("deployments") == []

    said = desk.fleet("apply", "--yes")
    assert "created Deployment/shop-mail" in said.err
    assert "2 of 2 available" in said.err
    assert len(world.names("pods")) == 2
    assert desk.fleet("plan", "--detailed-exitcode").out.count("untouched") == 1
    assert desk.planned() == {}


def test_the_plan_says_which_fields_of_the_workers_differ(desk: Desk) -> None:
    desk.fleet("apply", "--yes")
    desk.write(level="debug")

    plan = desk.planned()["Deployment/shop-mail"]
    assert plan["reason"] == "other workers: the pods are replaced"
    assert {"path": "worker.env.LEVEL", "before": "'info'", "after": "'debug'"} in plan["fields"]
    desk.fleet("plan", "--detailed-exitcode", code=2)


def test_what_workers_apply_live_replaces_no_pods(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    pods = world.names("pods")
    desk.write(slots=6)

    changed = desk.planned()
    assert set(changed) == {next(name for name in changed if name.startswith("ConfigMap/shop-mail-"))}
    desk.fleet("apply", "--yes")
    assert world.names("pods") == pods


def test_only_what_must_restart_restarts(desk: Desk, world: World) -> None:
    desk.write(more=CLOCK)
    desk.fleet("apply", "--yes")
    clock = [name for name in world.names("pods") if name.startswith("shop-clock")]
    desk.write(more=CLOCK, level="debug")

    before = set(world.names("pods"))
    desk.fleet("apply", "--yes")
    after = set(world.names("pods"))
    assert before & after == set(clock)


def test_the_count_is_scaled_in_the_manifest_or_live_until_the_next_apply(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    desk.fleet("scale", "mail=3", "--yes")
    assert "replicas: 3   # enough" in desk.manifest.read_text()
    assert len(world.names("pods")) == 3

    desk.fleet("scale", "mail=1", "--live", "--yes")
    eventually(lambda: len(world.names("pods")) == 1)
    assert desk.planned()["Deployment/shop-mail"]["reason"] == "scale 1 -> 3"
    assert desk.planned()["Deployment/shop-mail"]["conflicts"] == []
    desk.fleet("apply", "--yes")
    assert len(world.names("pods")) == 3


def test_a_group_that_left_the_manifest_stays_until_prune_is_asked_for(desk: Desk, world: World) -> None:
    desk.write(more=CLOCK)
    desk.fleet("apply", "--yes")
    desk.write()

    assert desk.planned()["Deployment/shop-clock"]["action"] == "leave"
    desk.fleet("apply", "--yes")
    assert world.names("deployments") == ["shop-clock", "shop-mail"]
    desk.fleet("apply", "--yes", "--prune")
    assert world.names("deployments") == ["shop-mail"]
    eventually(lambda: not [name for name in world.names("pods") if name.startswith("shop-clock")])
    assert not [name for name in world.names("configmaps") if name.startswith("shop-clock")]


def test_a_guard_keeps_pods_from_being_removed_by_mistake(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    desk.write(mail=0)
    said = desk.fleet("apply", "--yes", "--max-destroy", "1", code=9)
    assert "removes 2 of 2 pods" in said.err
    assert desk.deployment()["spec"]["replicas"] == 2


def test_fields_of_another_manager_are_taken_by_force_only(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    world.update("deployments", "shop-mail", {"spec": {"replicas": 5}}, manager="kubectl-scale")

    assert desk.planned()["Deployment/shop-mail"]["conflicts"] == ["spec.replicas is kubectl-scale's"]
    refused = desk.fleet("apply", "--yes", code=9)
    assert "spec.replicas is kubectl-scale's" in refused.err
    assert "--force-ownership" in refused.err
    assert desk.deployment()["spec"]["replicas"] == 5
    desk.fleet("apply", "--yes", "--force-ownership")
    assert desk.deployment()["spec"]["replicas"] == 2
    assert desk.planned() == {}


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux's Kustomization 'apps'"),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "shop"}}, "Flux's HelmRelease 'shop'"),
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:x/y"}},
            "Argo CD's application 'shop'",
        ),
    ],
)
def test_what_a_gitops_tool_keeps_is_refused(desk: Desk, world: World, metadata: dict[str, object], owner: str) -> None:
    desk.fleet("apply", "--yes")
    world.update("deployments", "shop-mail", {"metadata": metadata}, manager="someone")
    desk.write(mail=3)
    for verb in ("apply", "down"):
        assert f"{owner} keeps it" in desk.fleet(verb, "--yes", code=9).err
    assert desk.deployment()["spec"]["replicas"] == 2
    desk.fleet("apply", "--yes", "--force-ownership")
    assert desk.deployment()["spec"]["replicas"] == 3


def test_an_object_of_the_same_name_that_is_not_fleets_is_refused(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    world.update(
        "deployments", "shop-mail", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}, manager="me"
    )
    assert "it is not fleet's" in desk.fleet("apply", "--yes", code=9).err


def test_a_rollback_is_an_earlier_revision_and_a_new_one(desk: Desk, world: World, tmp_path: Path) -> None:
    desk.fleet("apply", "--yes", "--reason", "first")
    digest = desk.deployment()["spec"]["template"]["metadata"]["annotations"][DIGEST]
    desk.write(level="debug", more=CLOCK)
    desk.fleet("apply", "--yes")

    desk.fleet("rollback", "--yes")
    assert desk.deployment()["spec"]["template"]["metadata"]["annotations"][DIGEST] == digest
    assert world.names("deployments") == ["shop-mail"]
    revisions = desk.fleet("history", "-o", "json").json["revisions"]
    assert [(one["revision"], one["outcome"]) for one in revisions] == [(1, "good"), (2, "good"), (3, "good")]
    assert revisions[2]["message"] == "rollback to revision 1"
    assert not (tmp_path / "home").exists(), "revisions are in the cluster, not on this machine"


def test_a_rollout_that_the_cluster_gives_up_fails_with_the_reason(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    world.broken_images.add("shop:2")
    desk.write(image="shop:2", deadline=", deadline: 5s")
    said = desk.fleet("apply", "--yes", "--timeout", "60", code=6)
    assert "the rollout of shop-mail failed" in said.err
    assert "ImagePullBackOff" in said.err
    assert [one["outcome"] for one in desk.fleet("history", "-o", "json").json["revisions"]] == ["good", "failed"]
    desk.fleet("rollback", "--yes")
    assert desk.deployment()["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1"


def test_a_group_that_says_so_goes_back_to_what_worked_when_its_rollout_fails(desk: Desk, world: World) -> None:
    desk.write(deadline=", deadline: 5s, onFailure: rollback")
    desk.fleet("apply", "--yes")
    world.broken_images.add("shop:2")
    clock = CLOCK.replace("recreate", "recreate, onFailure: rollback")  # whichever is seen to fail first says so
    desk.write(image="shop:2", deadline=", deadline: 5s, onFailure: rollback", more=clock)
    said = desk.fleet("apply", "--yes", "--timeout", "60", code=5)
    assert "the rollout of shop-" in said.err
    assert "rolled back to revision 1" in said.err
    assert desk.deployment()["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1"
    assert world.names("deployments") == ["shop-mail"], "what came with it is gone"
    revisions = desk.fleet("history", "-o", "json").json["revisions"]
    assert [one["outcome"] for one in revisions] == ["good", "failed", "good"]
    assert "back to revision 1 after a failed rollout" in revisions[2]["message"]


def test_without_a_revision_that_worked_a_failed_rollout_stays(desk: Desk, world: World) -> None:
    world.broken_images.add("shop:1")
    desk.write(deadline=", deadline: 5s, onFailure: rollback")
    said = desk.fleet("apply", "--yes", "--timeout", "60", code=6)
    assert "rolled back" not in said.err
    assert desk.deployment()["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1"


def test_a_restart_replaces_pods_and_survives_the_next_apply(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    before = set(world.names("pods"))
    desk.fleet("restart", "mail", "--yes")
    assert not before & set(world.names("pods"))
    assert RESTARTED in desk.deployment()["spec"]["template"]["metadata"]["annotations"]
    after = world.names("pods")
    desk.write(mail=2)
    desk.fleet("apply", "--yes")
    assert world.names("pods") == after
    assert "did you mean 'mail'" in desk.fleet("restart", "mial", "--yes", code=64).err


def test_down_removes_what_the_fleet_owns_and_nothing_else(desk: Desk, world: World) -> None:
    desk.fleet("apply", "--yes")
    desk.fleet("down", "--yes")
    assert world.names("deployments") == []
    assert world.names("pods") == []
    assert world.names("serviceaccounts") in ([], ["default"])
    desk.manifest.unlink()
    back = ("--target", "kubernetes", "--context", "here", "--namespace", "shop", "--fleet", "shop")
    from fleet.cli import main

    assert main(("apply", "--yes", *back)) == 0
    assert len(world.names("pods")) == 2


def test_a_watch_that_breaks_is_taken_up_again(desk: Desk, world: World) -> None:
    """Broken again and again while pods start; the apply ends all the same."""
    ended = threading.Event()

    def breaking() -> None:
        while not ended.wait(0.05):
            world.break_watches()

    thread = threading.Thread(target=breaking, daemon=True)
    thread.start()
    try:
        desk.fleet("apply", "--yes")
        desk.write(level="debug", mail=4)
        desk.fleet("apply", "--yes")
    finally:
        ended.set()
        thread.join()
    assert len(world.names("pods")) == 4


def test_what_is_forbidden_is_named(desk: Desk, world: World) -> None:
    world.forbidden.add(("patch", "deployments"))
    said = desk.fleet("apply", "--yes", code=1)
    assert "may not patch deployments.apps in namespace shop" in said.err
    assert 'resources: ["deployments"], verbs: ["patch"]' in said.err
    assert world.names("deployments") == []


def test_one_command_changes_a_fleet_at_a_time(desk: Desk, world: World) -> None:
    from fleet.operate.cluster.lock import ClusterLock

    with ClusterLock("shop", Cluster(Place("here", "shop")), "fleet sync"):
        assert "`fleet sync`" in desk.fleet("apply", "--yes", code=8).err
    desk.fleet("apply", "--yes")


def test_one_of_two_leads(desk: Desk) -> None:
    moment = [0.0]
    one, two = (
        Leadership(
            Cluster(Place("here", "shop")), name="shop-lead", fleet="shop", holder=name, monotonic=lambda: moment[0]
        )
        for name in ("one", "two")
    )
    assert (one.look(), two.look()) == (True, False)
    moment[0] += 6
    assert (one.look(), two.look()) == (True, False)
    moment[0] += SECONDS + 1
    assert two.look()
    assert (one.look(), one.leads) == (False, False)
    two.give_up()
    assert one.look()


def test_a_namespace_that_is_not_there_is_said(desk: Desk) -> None:
    said = desk.fleet("apply", "--yes", "--namespace", "none", code=9)
    assert "has no namespace 'none'" in said.err
    assert "create namespace none" in said.err


def test_a_job_runs_once_for_each_version_of_what_waits_for_it(desk: Desk, world: World) -> None:
    desk.write(more=JOBS.format(web="1", job=""))
    desk.fleet("apply", "--yes")
    first = world.names("jobs")
    assert [name.startswith("shop-migrate-") for name in first] == [True]
    assert "complete" in str(desk.fleet("status", "-o", "json").json["groups"]["migrate"])

    desk.write(more=JOBS.format(web="1", job=""), level="debug")
    desk.fleet("apply", "--yes")
    assert world.names("jobs") == first, "mail waits for no job"

    desk.write(more=JOBS.format(web="2", job=""))
    said = desk.fleet("apply", "--yes")
    second = [name for name in world.names("jobs") if name not in first]
    assert said.err.index(f"{second[0]}: complete") < said.err.index("changed Deployment/shop-web")
    assert set(first) < set(world.names("jobs")), "an old ReplicaSet waits for it, should somebody go back"


def test_a_job_that_fails_leaves_what_waits_for_it_as_it_was(desk: Desk, world: World) -> None:
    desk.write(more=JOBS.format(web="1", job=""))
    desk.fleet("apply", "--yes")
    pods = [name for name in world.names("pods") if name.startswith("shop-web")]
    world.failing_images.add("shop:2")
    desk.write(more=JOBS.format(web="1", job=""), image="shop:2")

    said = desk.fleet("apply", "--yes", code=6)
    assert "a job failed: shop-migrate-" in said.err
    assert "what waits for jobs was not changed: web" in said.err
    assert [name for name in world.names("pods") if name.startswith("shop-web")] == pods
    assert desk.deployment()["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2", "mail waits for none"
    assert desk.fleet("history", "-o", "json").json["revisions"][-1]["outcome"] == "failed"
    assert desk.fleet("status", "-o", "json").json["groups"]["migrate"]["replicas"] == {"desired": 1, "ready": 0}

    world.failing_images.clear()
    again = next(one for name, one in desk.planned().items() if name.startswith("Job/"))
    assert again["reason"].startswith("it failed and runs again")
    desk.fleet("apply", "--yes")
    assert desk.deployment("web")["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:2"
    assert desk.planned() == {}


def test_another_job_replaces_no_worker_and_the_one_before_goes_once_it_is_complete(desk: Desk, world: World) -> None:
    desk.write(more=JOBS.format(web="1", job=""))
    desk.fleet("apply", "--yes")
    first, pods = world.names("jobs"), [name for name in world.names("pods") if name.startswith("shop-web")]
    desk.write(more=JOBS.format(web="1", job=", again"))
    desk.fleet("apply", "--yes")
    assert [name for name in world.names("pods") if name.startswith("shop-web")] == pods
    assert set(first) < set(world.names("jobs")), "until the new one is complete a pod may need it"
    assert desk.planned()[f"Job/{first[0]}"]["action"] == "remove"
    desk.fleet("apply", "--yes")
    assert len(world.names("jobs")) == 1
    assert not set(first) & set(world.names("jobs"))


def test_a_job_is_logged_and_not_restarted(desk: Desk) -> None:
    desk.write(more=JOBS.format(web="1", job=""))
    desk.fleet("apply", "--yes")
    assert "group migrate is a job" in desk.fleet("restart", "migrate", "--yes", code=64).err
    desk.fleet("down", "--yes")
    assert not desk.world.names("jobs")


WEB = "    web: {{pool: solo, {scaling}, queues: [web], rollout: {{strategy: recreate}}}}\n"
FIXED, SCALED = WEB.format(scaling="replicas: 5"), WEB.format(scaling="autoscale: {max: 8}")


def test_the_way_from_a_fixed_count_to_a_scaler_and_back_never_drops_to_one_pod(desk: Desk, world: World) -> None:
    _needs_keda(world)
    desk.write(more=FIXED)
    desk.fleet("apply", "--yes")
    pods = [name for name in world.names("pods") if name.startswith("shop-web")]
    desk.write(more=SCALED)

    assert desk.planned()["Deployment/shop-web"]["reason"] == "KEDA says from now on how many pods there are"
    desk.fleet("apply", "--yes")
    assert desk.deployment("web")["spec"]["replicas"] == 5
    assert [name for name in world.names("pods") if name.startswith("shop-web")] == pods
    assert world.names("scaledobjects") == ["shop-web"]
    assert desk.planned() == {}

    world.update("deployments", "shop-web", {"spec": {"replicas": 7}}, manager="kube-controller-manager")
    assert desk.planned() == {}, "the number is the scaler's"
    desk.write(more=FIXED)
    plan = desk.planned()["Deployment/shop-web"]
    assert (plan["reason"], plan["conflicts"]) == ("scale 7 -> 5", [])
    desk.fleet("apply", "--yes")
    assert desk.deployment("web")["spec"]["replicas"] == 5
    assert world.names("scaledobjects") == []


def _needs_keda(world: World) -> None:
    if not world.has_custom_resources:
        pytest.skip("this server knows none of KEDA's kinds")


def test_a_field_that_another_manager_keeps_outlives_its_owner(desk: Desk, world: World) -> None:
    """What the way to a scaler rests on, and what it avoids: a count that nobody owns falls back to one."""
    desk.fleet("apply", "--yes")
    cluster = Cluster(Place("here", "shop"))
    wanted = cluster.get(DEPLOYMENT, "shop-mail")
    assert wanted is not None
    spec = {name: value for name, value in wanted["spec"].items() if name != "replicas"}
    metadata = {"name": "shop-mail", "labels": wanted["metadata"]["labels"]}
    head = {"apiVersion": DEPLOYMENT.api, "kind": DEPLOYMENT.name}
    without = {**head, "metadata": metadata, "spec": spec}

    assert cluster.apply(DEPLOYMENT, without, dry_run=True)["spec"]["replicas"] == 1
    kept = {**head, "metadata": {"name": "shop-mail"}, "spec": {"replicas": 2}}
    cluster.apply(DEPLOYMENT, kept, manager=HANDOVER_MANAGER, force=True)
    assert cluster.apply(DEPLOYMENT, without)["spec"]["replicas"] == 2


def test_a_group_that_keda_scales_is_not_scaled_by_hand(desk: Desk, world: World) -> None:
    _needs_keda(world)
    desk.write(more=SCALED)
    desk.fleet("apply", "--yes")
    assert "scaled by KEDA" in desk.fleet("scale", "web=3", "--live", "--yes", code=9).err
