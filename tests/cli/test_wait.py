"""Waiting for a fleet: ready, idle, drained; and what `ready` means."""

from __future__ import annotations

import pytest

from fleet.core.observed import Trouble
from tests.cli.conftest import Desk


@pytest.mark.parametrize("trouble", [one for one in Trouble if one])
def test_a_replica_that_does_not_work_is_not_ready_in_any_view(desk: Desk, trouble: Trouble) -> None:
    desk.fleet("apply")
    assert desk.fleet("status", "--exit-code", "-o", "json").json["ready"]
    desk.world.trouble("thumbs.1", trouble, "what is wrong")

    document = desk.fleet("status", "--exit-code", "-o", "json", code=4).json
    worker = document["groups"]["thumbs"]["workers"][1]
    assert (document["ready"], document["groups"]["thumbs"]["replicas"]) == (False, {"desired": 3, "ready": 2})
    assert document["groups"]["thumbs"]["upToDate"] == 3
    assert (worker["ready"], worker["trouble"]) == (False, str(trouble))
    assert worker["state"] != "ready"
    assert "thumbs: 2 of 3 ready: thumbs.1" in desk.fleet("status").out
    assert f"{trouble}" in desk.fleet("status").out
    assert "not ready within 0 s: thumbs.1" in desk.fleet("wait", "--timeout", "0", code=4).err


def test_a_held_replica_that_is_stuck_is_not_ready_either(desk: Desk) -> None:
    desk.fleet("apply")
    desk.fleet("drain", "thumbs.1")
    assert desk.fleet("wait").out == "fleet shop: ready\n"
    desk.world.trouble("thumbs.1")
    assert not desk.fleet("status", "-o", "json").json["ready"]


def test_a_plan_restarts_what_is_stuck_and_says_why(desk: Desk) -> None:
    desk.fleet("apply")
    desk.world.trouble("thumbs.1")
    assert "thumbs.1  restart  stuck: no heartbeat for 45s" in desk.fleet("plan").out
    desk.fleet("apply")
    assert desk.fleet("status", "--exit-code").code == 0


def test_an_apply_waits_for_what_does_not_consume(desk: Desk) -> None:
    desk.fleet("apply")
    desk.world.trouble("thumbs.1", Trouble.NOT_CONSUMING, "not consuming: no fetch was answered for 40s")
    assert "thumbs.1 does not work: not consuming: no fetch was answered for 40s" in desk.fleet("plan").out
    assert "thumbs.1: unknown (not consuming" in desk.fleet("apply", "--timeout", "0", code=4).err


def test_idle_is_when_nothing_runs(desk: Desk) -> None:
    desk.fleet("apply")
    desk.world.work("reports.0", 1)
    assert "not idle within 0 s: reports.0" in desk.fleet("wait", "--for", "idle", "--timeout", "0", code=4).err
    assert desk.fleet("wait", "thumbs", "--for", "idle", "--timeout", "0").code == 0
    desk.world.finish("reports.0")
    assert desk.fleet("wait", "--for", "idle", "-o", "json").json["for"] == "idle"


def test_drained_is_when_nothing_runs_or_begins(desk: Desk) -> None:
    desk.fleet("apply")
    assert "thumbs.0" in desk.fleet("wait", "thumbs", "--for", "drained", "--timeout", "0", code=4).err
    desk.fleet("drain", "thumbs")
    desk.world.work("thumbs.2", 1)
    late = desk.fleet("wait", "thumbs", "--for", "drained", "--timeout", "0", code=4).err
    assert "not drained within 0 s: thumbs.2\n" in late
    desk.world.finish("thumbs.2")
    assert desk.fleet("wait", "thumbs", "--for", "drained").code == 0


def test_one_replica_can_be_waited_for(desk: Desk) -> None:
    desk.fleet("apply")
    desk.world.trouble("thumbs.1")
    assert desk.fleet("wait", "thumbs.0", "--timeout", "0").code == 0
    assert desk.fleet("wait", "thumbs.1", "--timeout", "0", code=4).code == 4
    assert desk.fleet("wait", "thumbz", code=64).code == 64


def test_a_fleet_that_is_down_is_not_ready(desk: Desk) -> None:
    desk.fleet("apply")
    desk.fleet("down", "--yes")
    assert "it is down" in desk.fleet("wait", "--timeout", "0", code=4).err
    assert desk.fleet("status", "--exit-code", code=4).code == 4


def test_a_watch_has_no_exit_code(desk: Desk) -> None:
    assert "fleet wait" in desk.fleet("status", "--watch", "--exit-code", code=64).err
