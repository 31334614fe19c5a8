"""fleet controller and fleet explain --live: slots that move."""

from __future__ import annotations

import pytest

from fleet import settings
from fleet.inputs import facts
from fleet.operate.local_fleet import LocalFleet
from fleet.state import decisions
from tests.cli.conftest import Desk

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: shop}
spec:
  app: shop:app
  broker: {url: "redis://127.0.0.1:1/0"}
  concurrency: 12
  groups:
    solos: {pool: solo, autoscale: {max: 10}, queues: [solos]}
    many: {pool: {type: threads, concurrency: 20}, autoscale: {}, queues: [many]}
"""


@pytest.fixture
def moving(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(facts, "probe", lambda _app, **_where: {"transportOptions": {}})
    desk.manifest.write_text(MANIFEST)
    desk.fleet("apply", "--yes")
    return desk


def test_one_look_says_what_it_saw_and_why_nothing_moves(moving: Desk) -> None:
    said = moving.fleet("controller", "--once", "--fleet", "shop").out

    assert said.splitlines()[0].split() == ["GROUP", "HAS", "NEED", "WANTS", "SHARE", "GETS", "QUEUE", "OLDEST", "WHY"]
    assert "many" in said
    assert "no metrics (queue" in said
    assert "budget 12 slots for the groups that move, 12 in use" in said


def test_one_look_as_a_document(moving: Desk) -> None:
    document = moving.fleet("controller", "--once", "-o", "json").json

    assert (document["fleet"], document["budget"], document["steps"]) == ("shop", 12, [])
    assert "the broker redis://127.0.0.1:1/0 does not answer" in document["note"]
    assert document["groups"]["many"]["queue"] is None
    assert {"has", "need", "wants", "share", "gets", "why"} <= set(document["groups"]["many"])


def test_what_is_live_is_what_the_controller_saw_last(moving: Desk) -> None:
    moving.fleet("controller", "--once")
    said = moving.fleet("explain", "--live")

    assert "many" in said.out
    assert "does not run" not in said.err
    assert moving.fleet("explain", "--live", "-o", "json").json["running"] is True


def test_without_a_controller_it_is_what_it_would_decide(moving: Desk) -> None:
    said = moving.fleet("explain", "--live")

    assert "note: the controller does not run: this is what it would decide now" in said.err
    assert "solos" in said.out
    assert not (moving.state / "decisions.json").exists()


def test_a_fleet_where_nothing_autoscales_says_so(desk: Desk) -> None:
    desk.fleet("apply", "--yes")

    assert "no group of the applied manifest autoscales" in desk.fleet("controller", "--once").out
    assert "no group of the applied manifest autoscales" in desk.fleet("explain", "--live").out


def test_a_second_controller_is_refused(moving: Desk) -> None:
    with LocalFleet("shop", settings=settings.load()).controller_lock():
        said = moving.fleet("controller", "--once", code=8)

    assert "fleet 'shop' has a controller already: " in said.err


def test_who_gets_the_next_slot_is_the_controllers_business_once_it_has_decided(moving: Desk) -> None:
    assert "one slot more would go to many" in moving.fleet("explain").out

    made = decisions.Decisions(1.0, {"solos": 2, "many": 10}, {"solos": "load: 1", "many": "backlog: 2"})
    decisions.write(moving.state / "decisions.json", made)
    said = moving.fleet("explain").out

    assert "backlog: 2; static share 6" in said
    assert "one slot more would go where the controller puts it" in said


def test_events_tell_each_move_with_its_reason(moving: Desk) -> None:
    fleet = LocalFleet("shop", settings=settings.load())
    moves = {"many": {"from": 6, "to": 9, "why": "backlog: 20 tasks/s x 1 s"}}
    fleet.audit.write({"event": "balance.moved", "moves": moves})

    assert "balance.moved     many 6 -> 9 slots: backlog: 20 tasks/s x 1 s" in moving.fleet("events").out


def test_the_programs_of_fleet_itself_are_no_groups_for_explain_or_scale(moving: Desk) -> None:
    assert "fleet-controller" not in moving.fleet("explain").out
    assert "there is no group 'fleet-controller'" in moving.fleet("scale", "fleet-controller=2", code=64).err


def test_a_live_scale_takes_from_those_who_share_before_it_gives(moving: Desk) -> None:
    fixed = MANIFEST.replace("solos: {pool: solo, autoscale: {max: 10}", "solos: {pool: solo, replicas: 2")
    moving.manifest.write_text(fixed)
    moving.fleet("apply", "--yes")
    calls = len(moving.world.calls)
    moving.fleet("scale", "solos=6", "--live", "--yes")

    done = [call for call in moving.world.calls[calls:] if call[0] in ("resize", "start")]
    assert done == [("resize", ("many.0",)), ("start", ("solos.2", "solos.3", "solos.4", "solos.5"))]
    seen = moving.world.observe().replicas.values()
    assert sum(one.slots for one in seen if not one.group.startswith("fleet-")) == 12
