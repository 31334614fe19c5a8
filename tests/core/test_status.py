"""The state at a glance: ready, drifted, missing, orphaned."""

from __future__ import annotations

from dataclasses import replace

from fleet.core.desired import BROKER_GROUP, RolloutPolicy
from fleet.core.observed import Observed, RunningTask, State, Stray
from fleet.core.status import document, summarise
from tests.worlds import FLEET, but, fleet, group, running, without

TWO = group("thumbs", 1, 1)


def test_a_fleet_as_wanted_is_ready() -> None:
    status = summarise(fleet(TWO), running(TWO), revision=3)

    assert status.ready
    assert not status.drifted


def test_the_document_is_the_contract() -> None:
    one = group("thumbs", 1)
    seen = but(
        running(one),
        "thumbs.0",
        pid=4242,
        digest="9f31c2ab",
        busy=1,
        processed=120,
        failed=2,
        memory_bytes=31457280,
        uptime_seconds=12.5,
        tasks=(RunningTask("id-1", "shop.thumb", 1.2),),
    )

    shown = document(summarise(None, seen, revision=3))

    assert shown["fleet"] == "shop"
    assert shown["revision"] == 3
    assert shown["ready"] is True
    thumbs = shown["groups"]["thumbs"]
    expected = {
        "pool": "solo",
        "replicas": {"desired": 1, "ready": 1},
        "slots": {"desired": 1, "busy": 1},
        "processed": 120,
        "failed": 2,
    }
    assert {key: thumbs[key] for key in expected} == expected
    worker = {
        "name": "thumbs.0",
        "pid": 4242,
        "state": "ready",
        "digest": "9f31c2ab",
        "slots": 1,
        "busy": 1,
        "processed": 120,
        "failed": 2,
        "memory": 31457280,
        "uptime": 12.5,
        "tasks": [{"id": "id-1", "name": "shop.thumb", "since": 1.2}],
    }
    assert {key: thumbs["workers"][0][key] for key in worker} == worker


def test_missing_outdated_starting_and_failed_replicas_are_not_ready() -> None:
    for seen in (
        without(running(TWO), "thumbs.1"),
        but(running(TWO), "thumbs.1", digest="0ld0ld00"),
        but(running(TWO), "thumbs.1", state=State.STARTING),
        but(running(TWO), "thumbs.1", state=State.FAILED, pid=None),
    ):
        status = summarise(fleet(TWO), seen, revision=1)
        assert not status.ready
        assert (status.groups["thumbs"].ready_replicas, status.groups["thumbs"].desired_replicas) == (1, 2)


def test_drift_says_what_is_wrong_with_each() -> None:
    seen = but(without(running(group("thumbs", 1, 1, 1, 1), group("old", 1)), "thumbs.0"), "thumbs.1", digest="0ld")
    status = summarise(fleet(group("thumbs", 1, 1)), seen, revision=1)

    assert [(one.name, one.drift) for one in status.groups["thumbs"].workers] == [
        ("thumbs.1", "not wanted"),
        ("thumbs.2", ""),
        ("thumbs.3", ""),
    ]
    assert [one.drift for one in status.groups["old"].workers] == ["not in manifest"]
    assert status.drifted
    assert status.ready


def test_what_is_missing_is_named() -> None:
    status = summarise(fleet(group("thumbs", 1, 1, 1)), without(running(TWO), "thumbs.0"), revision=1)

    assert status.groups["thumbs"].missing == ("thumbs.0", "thumbs.2")


def test_an_orphan_does_not_make_a_fleet_unready() -> None:
    assert summarise(fleet(TWO), running(TWO, group("old", 1)), revision=1).ready


def test_a_fleet_that_does_not_run_is_not_ready() -> None:
    nothing = Observed(FLEET)

    assert not summarise(fleet(TWO), nothing, revision=0).ready
    assert not summarise(None, nothing, revision=0).ready
    assert document(summarise(None, nothing, revision=0))["groups"] == {}


def test_a_held_replica_is_as_ready_as_it_should_be() -> None:
    assert summarise(fleet(TWO), but(running(TWO), "thumbs.0", held=True), revision=1).ready


def test_the_embedded_broker_stands_apart() -> None:
    broker = group(BROKER_GROUP, 1, system=True, capacity_slots=0)
    broker = replace(broker, spec=replace(broker.spec, kind="command"))

    shown = document(summarise(fleet(TWO, broker), running(TWO, broker), revision=1))

    assert set(shown["groups"]) == {"thumbs"}
    assert shown["system"][BROKER_GROUP]["pool"] == "command"


def test_a_worker_without_a_record_yet_has_the_slots_of_its_spec() -> None:
    one = group("reports", 10, pool="prefork")
    status = summarise(fleet(one), but(running(one), "reports.0", slots=0, state=State.STARTING), revision=1)

    assert status.groups["reports"].workers[0].slots == 10


def test_strays_are_shown() -> None:
    seen = replace(running(TWO), strays=(Stray(77, "thumbs.1", "duplicate"),))

    assert document(summarise(fleet(TWO), seen, revision=1))["strays"] == [
        {"pid": 77, "replica": "thumbs.1", "kind": "duplicate"}
    ]


def test_available_is_ready_for_min_ready_and_taking_tasks() -> None:
    one = group("a", 1, 1, 1, 1, rollout=RolloutPolicy(min_ready_seconds=10.0))
    seen = running(one)
    seen = but(seen, "a.0", ready_seconds=10.0)
    seen = but(seen, "a.1", ready_seconds=9.9)
    seen = but(seen, "a.2", ready_seconds=60.0, held=True)
    seen = but(seen, "a.3", ready_seconds=60.0, digest="0ld0ld00")

    status = summarise(fleet(one), seen, revision=1)

    found = status.groups["a"]
    assert (found.up_to_date_replicas, found.ready_replicas, found.available_replicas) == (3, 3, 2)
    shown = document(status)["groups"]["a"]
    assert (shown["upToDate"], shown["replicas"]["ready"], shown["available"]) == (3, 3, 2)
