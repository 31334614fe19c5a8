"""What is asked of pods: status, logs, drain. The stand-in plays the inside of the pods; a server alone has none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.backends.kubernetes.conftest import Desk
from tests.backends.kubernetes.stand_in import StandIn


@pytest.fixture
def world() -> Iterator[StandIn]:
    with StandIn() as api:
        yield api


def test_status_is_the_table_of_a_host_with_pods_as_replicas(desk: Desk, world: StandIn) -> None:
    tasks = [{"id": "1", "name": "shop.mail", "since": 2.0}]
    inside = {"condition": "ready", "pid": 7, "slots": 4, "busy": 1, "processed": 30, "failed": 2, "tasks": tasks}
    world.run = lambda pod, command: json.dumps({"replicas": [{**inside, "memory": 50 << 20}]})
    desk.fleet("apply", "--yes")

    seen = desk.fleet("status", "--exit-code", "-o", "json").json
    mail = seen["groups"]["mail"]
    assert seen["ready"] is True
    assert seen["source"] == ""
    assert (mail["replicas"], mail["slots"]) == ({"desired": 2, "ready": 2}, {"desired": 8, "busy": 2})
    assert (mail["processed"], mail["failed"]) == (60, 4)
    text = desk.fleet("status").out
    assert "2/2 ready" in text
    assert "shop.mail 2.0s" in text
    assert "50Mi" in text


def test_without_the_right_to_exec_the_conditions_of_the_pods_are_shown(desk: Desk, world: StandIn) -> None:
    desk.fleet("apply", "--yes")
    world.forbidden.add(("create", "pods/exec"))
    seen = desk.fleet("status", "-o", "json").json
    assert seen["ready"] is True
    assert seen["groups"]["mail"]["replicas"] == {"desired": 2, "ready": 2}
    assert "may not create pods/exec" in seen["source"]
    assert "from the conditions of the pods alone" in desk.fleet("status").out


def test_pods_of_the_image_before_are_outdated(desk: Desk, world: StandIn) -> None:
    desk.fleet("apply", "--yes")
    world.broken_images.add("shop:2")
    desk.write(image="shop:2")
    desk.fleet("apply", "--yes", code=6)
    workers = desk.fleet("status", "-o", "json").json["groups"]["mail"]["workers"]
    assert sorted(one["drift"] for one in workers) == ["", "", "outdated", "outdated"]


def test_what_does_not_run_is_shown_with_its_reason(desk: Desk, world: StandIn) -> None:
    world.broken_images.add("shop:1")
    desk.fleet("apply", "--yes", code=6)
    said = desk.fleet("status", "--exit-code", code=4)
    assert "ImagePullBackOff: shop:1" in said.out
    assert "0/2 ready" in said.out


def test_the_verdict_on_the_rollout_before_says_nothing_about_this_one(desk: Desk, world: StandIn) -> None:
    """The controller of Deployments notices a change before it takes its last word back."""
    desk.fleet("apply", "--yes")
    world.broken_images.add("shop:2")
    desk.write(image="shop:2")
    desk.fleet("apply", "--yes", code=6)
    world.is_watched_closely = True
    desk.fleet("rollback", "--yes")
    assert "timed out progressing" in desk.fleet("apply", "--yes", code=6).err


def test_a_pod_that_gives_no_answer_is_named(desk: Desk, world: StandIn) -> None:
    desk.fleet("apply", "--yes")
    world.run = lambda pod, command: "Traceback"
    assert f"no answer from `fleet health` in {world.names('pods')[0]}" in desk.fleet("status").out


def test_logs_are_merged_by_time(desk: Desk, world: StandIn) -> None:
    desk.fleet("apply", "--yes")
    first, second = world.names("pods")
    world.logs[first] = ["2026-11-21T05:00:01.5Z begin", "2026-11-21T05:00:03Z end"]
    world.logs[second] = ["2026-11-21T05:00:02Z between"]

    assert desk.fleet("logs").out.splitlines() == [f"{first} | begin", f"{second} | between", f"{first} | end"]
    assert desk.fleet("logs", second, "-o", "json").json["line"] == "between"
    assert desk.fleet("logs", "mail", "-n", "1").out == f"{first} | end\n"
    assert "did you mean 'mail'" in desk.fleet("logs", "mial", code=64).err


def test_logs_are_followed_into_pods_that_come_later(desk: Desk, world: StandIn) -> None:
    desk.fleet("apply", "--yes")
    first = world.names("pods")[0]
    world.logs[first] = ["2026-11-21T05:00:01Z begin"]
    command = [sys.executable, "-m", "fleet", "logs", "-f", "-o", "json", str(desk.manifest)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            assert json.loads(following.stdout.readline())["line"] == "begin"
            world.logs[first].append("2026-11-21T05:00:02Z more")
            assert json.loads(following.stdout.readline())["line"] == "more"
            desk.fleet("scale", "mail=3", "--yes")
            third = world.names("pods")[2]
            world.logs[third] = ["2026-11-21T05:00:01Z here I am"]
            assert json.loads(following.stdout.readline()) == {
                "replica": third,
                "at": "2026-11-21T05:00:01Z",
                "line": "here I am",
            }
        finally:
            following.terminate()


def test_drain_holds_the_workers_and_resume_releases_them(desk: Desk, world: StandIn) -> None:
    asked: list[tuple[str, str]] = []

    def run(pod: str, command: list[str]) -> str:
        asked.append((pod, command[-1]))
        return "done\n"

    desk.fleet("apply", "--yes")
    world.run = run
    first, second = world.names("pods")
    desk.fleet("drain", "mail", "--yes")
    desk.fleet("resume", first, "--yes")
    assert asked == [(first, "on"), (second, "on"), (first, "off")]
    world.run = lambda pod, command: "/run/fleet/mail.rec: no record of a worker\n"
    assert "2 of 2 pods did not do it" in desk.fleet("drain", "mail", "--yes", code=9).err
    assert "name groups or pods" in desk.fleet("drain", "--yes", code=64).err


def test_forbidden_exec_is_named(desk: Desk, world: StandIn) -> None:
    desk.fleet("apply", "--yes")
    world.forbidden.add(("create", "pods/exec"))
    assert "may not create pods/exec in namespace shop" in desk.fleet("drain", "mail", "--yes", code=1).err


def test_a_pod_with_several_replicas_is_one_line_with_all_they_do(desk: Desk, world: StandIn) -> None:
    def write(pack: int) -> None:
        desk.write()
        text = desk.manifest.read_text()
        assert '"shop:1"' in text
        desk.manifest.write_text(text.replace('"shop:1"', f'"shop:1", groups: {{mail: {{pack: {pack}}}}}'))

    inside = {"condition": "ready", "pid": 7, "slots": 4, "busy": 1, "processed": 30, "failed": 2, "memory": 50 << 20}
    world.run = lambda pod, command: json.dumps({"replicas": [inside, {**inside, "pid": 8}]})
    write(2)
    desk.fleet("apply", "--yes")
    mail = desk.fleet("status", "--exit-code", "-o", "json").json["groups"]["mail"]
    assert (mail["replicas"], mail["slots"]) == ({"desired": 1, "ready": 1}, {"desired": 8, "busy": 2})
    assert (mail["processed"], mail["failed"]) == (60, 4)

    write(3)
    planned = desk.fleet("plan")
    assert "the 2 replicas of mail become 1 pod of 3: 1 more than written" in planned.out + planned.err
    assert "manifest.spec.groups.mail.replicas" in planned.out, "what differs is said by its field"
    assert "other workers: the pods are replaced" in planned.out
