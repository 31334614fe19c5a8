"""Groups on their way, through the command line: replicas in memory, and a stand-in of a cluster."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from fleet import settings
from fleet.backends.kubernetes.client import Place
from fleet.operate.cluster.cluster_fleet import ClusterFleet
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.migrate.effects import Effects
from tests.operate.migrate.conftest import CLUSTER, Desk

FLUX = "kustomize.toolkit.fluxcd.io/name"
EFFECTS = ("keep", "forget", "tell", "forget_there", "there", "here")


def around(monkeypatch: pytest.MonkeyPatch, called: Callable[[str, bool], None]) -> None:
    """Have something called before and after every effect; told which, and whether it is over."""
    for name in EFFECTS:
        plain = getattr(Effects, name)

        def wrapped(self: Effects, *args: Any, _plain: Any = plain, _name: str = name, **more: Any) -> Any:
            called(_name, False)
            result = _plain(self, *args, **more)
            called(_name, True)
            return result

        monkeypatch.setattr(Effects, name, wrapped)


def test_every_group_moves_there_and_back_within_the_budget(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, int]] = []

    def check(_effect: str, _is_over: bool) -> None:
        assert desk.slots_here() + desk.slots_there() <= 13
        here, there = desk.here(), desk.there()
        served.append({name: here.get(name, 0) + there.get(name, 0) for name in ("mail", "thumbs")})

    around(monkeypatch, check)
    for group in ("clock", "thumbs", "mail"):
        assert f"{group} lives in namespace shop" in desk.step().err
    assert (desk.here(), desk.there()) == ({}, {"clock": 1, "thumbs": 5, "mail": 2})
    assert desk.kept()["is_complete"]
    assert desk.kept_there() is None, "the whole manifest is the cluster's"
    assert "no group is left to move" in desk.step().err

    for group in ("mail", "thumbs", "clock"):
        assert f"{group} lives on this host" in desk.step("--back").err
    assert (desk.here(), desk.there()) == ({"clock": 1, "thumbs": 5, "mail": 2}, {})
    assert (desk.kept(), desk.kept_there()) == (None, None)
    assert desk.api.names("deployments") == desk.api.names("serviceaccounts") == []
    assert all(all(one.values()) for one in served), "both groups served all the time"


def test_the_plan_says_what_each_step_starts_and_stops_and_changes_nothing(desk: Desk) -> None:
    said = desk.migrate("plan").out
    assert "fleet shop moves to namespace shop of context here, within 13 slots" in said
    assert "two of beat would send every task twice" in said
    assert "drain 2 replicas on the host" in said
    assert "slots: 2 there + 3 here = 5 of 5" in said
    moves = desk.migrate("plan -o json mail").json["moves"]
    assert [one["group"] for one in moves] == ["mail"]
    assert moves[0]["steps"][-1] == {"pods": 2, "slotsThere": 8, "slotsHere": 0}
    assert desk.step("--dry-run mail -o json").json["moves"] == moves
    assert desk.kept() is None
    assert desk.api.names("configmaps") == []


def test_with_room_for_both_a_group_starts_there_whole_before_anything_drains_here(desk: Desk) -> None:
    desk.write(budget=30)
    desk.fleet("apply prod.yaml --yes")
    steps = desk.migrate("plan -o json mail").json["moves"][0]["steps"]
    assert [(one["pods"], one["slotsHere"]) for one in steps] == [(0, 8), (2, 8), (2, 0)]


def test_a_named_group_moves_alone_and_status_says_which_side_each_is_on(desk: Desk) -> None:
    desk.step("mail")
    found = desk.fleet("migrate status -o json").json
    assert {name: one["lives"] for name, one in found["groups"].items()} == {
        "clock": "host",
        "mail": "cluster",
        "thumbs": "host",
    }
    assert found["groups"]["mail"]["pods"] == {"desired": 2, "ready": 2}
    assert "slots: 5 here + 8 in the cluster = 13 of 13" in desk.fleet("migrate status").out
    assert "mail lives in namespace shop of context here already" in desk.step("mail").err
    assert "there is no group 'maill'" in desk.step("maill", code=64).err


# --- a crash


class Crash(BaseException):
    """The process ends, and cleans nothing up."""


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End at this point, counted before and after each effect."""
    left = [number]

    def count(_effect: str, _is_over: bool) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    around(monkeypatch, count)


@pytest.mark.parametrize("number", [4, 11, 18])
def test_an_apply_on_either_side_after_a_crash_undoes_nothing_and_the_next_step_goes_on(
    desk: Desk, number: int
) -> None:
    desk.write(budget=10, thumbs=2)
    desk.fleet("apply prod.yaml --yes")
    for flag, here, there in (("", 0, 2), ("--back", 2, 0)):
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, number)
            with pytest.raises(Crash):
                desk.step(f"{flag} thumbs")
        before = {**desk.there(), **{f"{name} here": count for name, count in desk.here().items()}}
        assert before.get("thumbs", 0) + before.get("thumbs here", 0) > 0, "it serves"
        desk.fleet("apply prod.yaml --yes")
        assert desk.kept_there() is not None
        desk.fleet("apply prod.yaml cluster.yaml --yes")
        assert desk.slots_here() + desk.slots_there() <= 10
        assert desk.here().get("thumbs", 0) + desk.there().get("thumbs", 0) > 0, "and goes on serving"
        assert "->" in desk.fleet("migrate status -o json").json["groups"]["thumbs"]["lives"]
        desk.step(flag)
        assert (desk.here().get("thumbs", 0), desk.there().get("thumbs", 0)) == (here, there)


# --- whose group it is


def test_an_apply_on_the_host_says_which_groups_the_cluster_has_and_starts_none_of_them(desk: Desk) -> None:
    desk.step("mail")
    said = desk.fleet("plan prod.yaml")
    assert "mail: lives in namespace shop of context here; `fleet migrate` moves it" in said.out
    desk.write(more="    news: {pool: solo, replicas: 1, queues: [news]}\n")
    refused = desk.fleet("apply prod.yaml --yes", code=3)
    assert "spec.concurrency" in refused.err
    desk.write(thumbs=4, more="    news: {pool: solo, replicas: 1, queues: [news]}\n")
    desk.fleet("apply prod.yaml --yes")
    assert desk.here() == {"clock": 1, "thumbs": 4, "news": 1}
    for line in (
        "scale --live mail=3 --fleet shop --yes",
        "pause mail --fleet shop --yes",
        "rollback --fleet shop --yes",
    ):
        desk.fleet(line)
        assert "mail" not in desk.here(), line
    assert desk.there() == {"mail": 2}


def test_an_apply_in_the_cluster_has_its_groups_and_its_part_of_the_budget_alone(desk: Desk) -> None:
    desk.step("mail")
    plan = desk.fleet("plan prod.yaml cluster.yaml")
    assert "clock, thumbs: on host" in plan.out
    assert desk.fleet("status prod.yaml cluster.yaml -o json").json["groups"].keys() == {"mail"}
    desk.write(budget=21, cluster=CLUSTER + "  groups: {mail: {replicas: 4}}\n")
    refused = desk.fleet("apply prod.yaml cluster.yaml --yes", code=9)
    assert "the part of fleet shop that is in the cluster has 8 slots" in refused.err
    assert "until all groups have moved" in refused.err
    desk.write(cluster=CLUSTER + "  groups: {mail: {replicas: 1}}\n")
    desk.fleet("apply prod.yaml cluster.yaml --yes --prune")
    assert desk.there() == {"mail": 1}
    desk.fleet("rollback prod.yaml cluster.yaml --yes")
    assert desk.there() == {"mail": 2}
    assert desk.here() == {"clock": 1, "thumbs": 5}


def test_a_fleet_that_moved_as_a_whole_starts_nothing_more_on_the_host(desk: Desk) -> None:
    desk.write(budget=14)
    desk.fleet("apply prod.yaml --yes")
    for _ in range(3):
        desk.step()
    desk.write(budget=14, more="    news: {pool: solo, replicas: 1, queues: [news]}\n")
    refused = desk.fleet("apply prod.yaml --yes", code=9)
    assert "lives in namespace shop of context here, so news cannot start here" in refused.err
    desk.fleet("apply prod.yaml cluster.yaml --yes")
    assert desk.there() == {"clock": 1, "thumbs": 5, "mail": 2, "news": 1}
    assert desk.here() == {}

    said = desk.step("--back mail")
    assert "mail lives on this host" in said.err
    assert (desk.here(), desk.there()) == ({"mail": 2}, {"clock": 1, "thumbs": 5, "news": 1}), "none is lost"

    desk.step("--back")
    desk.step("--back")
    assert "news: in the cluster, and not on this host: apply it here first" in desk.step("--back").err
    desk.fleet("apply prod.yaml --yes")
    assert (desk.here().get("news", 0), desk.there()) == (0, {"news": 1})
    desk.step("--back")
    assert (desk.here()["news"], desk.there(), desk.kept()) == (1, {}, None)


# --- what fails, and what is refused


def test_pods_that_never_run_leave_the_group_where_it_was_and_the_next_step_goes_on(desk: Desk) -> None:
    desk.api.broken_images.add("shop:1")
    failed = desk.step("mail", code=6)
    assert "ImagePullBackOff" in failed.err
    assert "mail stays on both sides: 1 replica on this host, 1 pod in the cluster" in failed.err
    assert desk.here()["mail"] == 1
    assert desk.fleet("migrate status -o json").json["groups"]["mail"]["lives"] == "host -> cluster"
    document = desk.step("-o json mail", code=6).json
    assert "mail stays on both sides" in document["error"]["message"]
    assert document["error"]["hint"].endswith("undoes it")

    desk.step("--back mail")
    assert (desk.here()["mail"], desk.there(), desk.kept()) == (2, {}, None)
    desk.api.broken_images.clear()
    desk.step("mail")
    assert (desk.here().get("mail", 0), desk.there()) == (0, {"mail": 2})
    events = [json.loads(line)["event"] for line in desk.fleet("events --fleet shop -o json").out.splitlines()]
    assert {"migration.began", "migration.step", "migration.failed", "migration.done"} <= set(events)


def test_what_the_cluster_would_refuse_stops_nothing_here(desk: Desk) -> None:
    desk.api.forbidden.add(("patch", "deployments"))
    refused = desk.step("clock", code=1)
    assert "may not patch deployments.apps" in refused.err
    assert "clock stays" not in refused.err
    assert (desk.here()["clock"], desk.kept()) == (1, None)
    desk.api.forbidden.clear()
    desk.step("clock")
    desk.api.update("deployments", "shop-clock", {"metadata": {"labels": {FLUX: "apps"}}}, manager="someone")
    assert "Flux's Kustomization 'apps' keeps it" in desk.step("mail", code=9).err
    assert (desk.here()["mail"], desk.there()) == (2, {"clock": 1})


def test_what_must_never_run_twice_runs_here_again_where_its_pod_does_not_start(desk: Desk) -> None:
    desk.api.broken_images.add("shop:1")
    failed = desk.step("clock", code=5)
    assert "clock runs on this host again" in failed.err
    assert (desk.here()["clock"], desk.there()) == (1, {})


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (
            {"cluster": CLUSTER + '  broker: {url: "redis://localhost/0"}\n'},
            9,
            "pods do not reach a broker of this host",
        ),
        ({"cluster": CLUSTER + "  groups: {mail: {queues: [post]}}\n"}, 9, "it takes from mail here and from post"),
        ({"cluster": CLUSTER + "  concurrency: 40\n"}, 9, "spec.concurrency is 13 on this host and 40"),
        ({"cluster": CLUSTER + "  groups: {mail: {replicas: 3}}\n  concurrency: 17\n"}, 9, "spec.concurrency is 13"),
        ({"cluster": "spec: {}\n"}, 64, "which context of the cluster?"),
    ],
)
def test_what_cannot_move_is_refused_before_anything_happens(
    desk: Desk, change: dict[str, str], code: int, words: str
) -> None:
    desk.write(**change)  # type: ignore[arg-type]
    assert words in desk.step("mail", code=code).err
    assert (desk.kept(), desk.there()) == (None, {})


def test_an_embedded_broker_cannot_be_shared(desk: Desk) -> None:
    path = desk.folder / "prod.yaml"
    path.write_text(path.read_text().replace('broker: {url: "redis://redis.internal/0"}', "broker: embedded"))
    cluster = CLUSTER + '  broker: {url: "redis://redis.internal/0"}\n'
    (desk.folder / "cluster.yaml").write_text(cluster)
    desk.fleet("apply prod.yaml --yes")
    assert "broker: embedded is a server of this host" in desk.step("mail", code=9).err


def test_a_fleet_that_runs_on_both_sides_already_is_refused(desk: Desk) -> None:
    desk.fleet("apply prod.yaml cluster.yaml --yes")
    assert "runs in namespace shop of context here already" in desk.step("mail", code=9).err


def test_a_group_goes_after_the_job_that_its_pods_wait_for(desk: Desk) -> None:
    more = (
        "    setup: {command: [python, setup.py], job: true}\n"
        "    web: {pool: solo, replicas: 1, queues: [web], dependsOn: [setup]}\n"
    )
    desk.write(budget=14, more=more)
    desk.fleet("apply prod.yaml --yes")
    assert "its pods wait for setup, which is on the host: move that one first" in desk.step("web", code=9).err
    moves = [one["group"] for one in desk.migrate("plan -o json").json["moves"]]
    assert moves.index("setup") < moves.index("web")
    desk.step("setup")
    desk.step("web")
    assert desk.there()["web"] == 1
    assert "pods of web wait for it: move that one first" in desk.step("--back setup", code=9).err
    back = [one["group"] for one in desk.migrate("plan --back -o json").json["moves"]]
    assert back == ["web", "setup"]


def test_a_job_that_the_cluster_alone_has_runs_before_the_first_group_that_waits_for_it(desk: Desk) -> None:
    job = "    check: {command: [python, check.py], job: true}\n    mail: {dependsOn: [check]}\n"
    desk.write(cluster=f"{CLUSTER}  groups:\n{job}")
    assert "check: not on this host" in desk.migrate("plan").err
    desk.step("thumbs")
    assert desk.api.names("jobs") == []
    assert "complete" in desk.step("mail").err
    assert [name.startswith("shop-check-") for name in desk.api.names("jobs")] == [True]
    desk.step("clock")
    assert desk.kept()["is_complete"]
    for _ in range(3):
        desk.step("--back")
    assert desk.api.names("jobs") == desk.api.names("deployments") == []
    assert desk.kept() is None


def test_another_host_leaves_a_migration_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.step("mail")
    monkeypatch.setenv("FLEET_HOME", str(desk.folder / "other"))
    settings.load.cache_clear()
    assert "moves groups to namespace shop of context here already" in desk.step("thumbs", code=9).err
    assert desk.there() == {"mail": 2}


def test_one_command_at_a_time_on_either_side(desk: Desk) -> None:
    local = LocalFleet("shop", settings=settings.load())
    with local.lock("fleet apply"):
        assert "is being changed" in desk.step("mail", code=8).err
    with ClusterFleet("shop", Place("here", "shop")).lock("fleet apply"):
        assert "is being changed by" in desk.step("mail", code=8).err
    assert (desk.kept(), desk.there()) == (None, {})


def test_plan_and_status_write_nothing(desk: Desk) -> None:
    desk.step("mail")
    before = {path: path.stat().st_mtime_ns for path in (desk.folder / "home").rglob("*") if path.is_file()}
    stored = {plural: desk.api.names(plural) for plural in desk.api.kinds}
    writes = [one for one in desk.api.requests if not one.startswith(("get", "list", "watch"))]
    for line in ("plan", "plan --back", "status", "step --dry-run"):
        desk.migrate(line)
    assert before == {path: path.stat().st_mtime_ns for path in (desk.folder / "home").rglob("*") if path.is_file()}
    assert stored == {plural: desk.api.names(plural) for plural in desk.api.kinds}
    after = [one for one in desk.api.requests if not one.startswith(("get", "list", "watch"))]
    assert all("dry run" in one for one in after[len(writes) :])


def test_what_the_manifest_changes_besides_is_said(desk: Desk) -> None:
    desk.step("mail")
    path = desk.folder / "prod.yaml"
    path.write_text(path.read_text().replace("queues: [mail]}", "queues: [mail], env: {LEVEL: debug}}"))
    for line in ("plan", "step --dry-run"):
        assert "this manifest also changes mail in the cluster" in desk.migrate(line).err
    assert "this manifest also changes" not in desk.migrate("plan --back mail").err


def test_status_says_so_on_both_sides_and_without_the_cluster(desk: Desk) -> None:
    desk.step("mail")
    assert "mail: lives in namespace shop of context here (`fleet migrate status`)" in desk.fleet("status").out
    desk.api.forbidden.add(("list", "deployments"))
    said = desk.fleet("migrate status -o json").json
    assert said["groups"]["mail"]["lives"] == "cluster"
    assert said["groups"]["mail"]["pods"] is None
    assert "what runs in the cluster is not known" in said["note"]


def test_taking_the_fleet_down_in_the_cluster_says_whose_groups_it_had(desk: Desk) -> None:
    desk.step("mail")
    said = desk.fleet("down prod.yaml cluster.yaml --yes")
    assert "mail moved here from host" in said.err
    assert desk.there() == {}
    desk.fleet("apply prod.yaml --yes")
    assert "mail" not in desk.here()
    desk.step("--back mail")
    assert desk.here()["mail"] == 2


def test_a_count_by_hand_is_part_of_the_budget_that_others_leave(desk: Desk) -> None:
    desk.write(budget=20)
    desk.fleet("apply prod.yaml --yes")
    desk.fleet("scale --live thumbs=9 --fleet shop --yes")
    assert desk.migrate("plan -o json mail").json["moves"][0]["room"] == 11
    desk.step("mail")
    assert (desk.here()["thumbs"], desk.there()) == (9, {"mail": 2})
    assert desk.slots_here() + desk.slots_there() <= 20


def test_a_group_that_is_paused_by_hand_stays(desk: Desk) -> None:
    desk.fleet("pause mail --fleet shop --yes")
    assert "it is paused on this host by hand: `fleet resume mail` first" in desk.step("mail", code=9).err


def test_a_group_that_the_manifest_pauses_moves_without_running_and_keeps_its_part(desk: Desk) -> None:
    path = desk.folder / "prod.yaml"
    path.write_text(path.read_text().replace("queues: [mail]}", "queues: [mail], paused: true}"))
    desk.fleet("apply prod.yaml --yes")
    assert "nothing runs: only the side is noted" in desk.migrate("plan mail").out
    desk.step("mail")
    assert (desk.here().get("mail", 0), desk.there()) == (0, {})
    assert desk.kept()["groups"]["mail"]["part"] == 8
    desk.write()
    desk.fleet("apply prod.yaml cluster.yaml --yes")
    assert desk.there() == {"mail": 2}


def test_which_groups_are_where_outlives_the_fleet_on_the_host(desk: Desk) -> None:
    desk.step("mail")
    desk.fleet("down --fleet shop --yes")
    assert "is down on this host" in desk.step("thumbs", code=9).err
    desk.fleet("apply prod.yaml --yes")
    assert desk.here() == {"clock": 1, "thumbs": 5}
    desk.step("--back")
    assert (desk.here(), desk.there()) == ({"clock": 1, "thumbs": 5, "mail": 2}, {})


def test_a_signal_ends_a_step_between_two_effects_and_the_same_command_goes_on(desk: Desk) -> None:
    def interrupt(effect: str, is_over: bool) -> None:
        if effect == "there" and not is_over and desk.there():
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        around(patch, interrupt)
        said = desk.step("thumbs", code=130)
    assert "stopping between two steps" in said.err
    assert "thumbs stays on both sides" in said.err
    assert "run the same command again" in said.err
    assert desk.here()["thumbs"] > 0
    desk.step()
    assert (desk.here().get("thumbs", 0), desk.there()) == (0, {"thumbs": 5})
