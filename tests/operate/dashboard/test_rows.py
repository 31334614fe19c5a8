"""What pages show, from what was seen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.observed import State, Trouble
from fleet.core.status import summarise
from fleet.operate.dashboard import rows
from fleet.operate.dashboard.hour import EVERY_SECONDS, KEPT, Hour
from fleet.operate.dashboard.shown import difference, shown, shown_json
from fleet.replica.record import RecordView, SlotView
from tests.worlds import but, fleet, group, running

NOW = 1_000_000.0
WANTED = fleet(group("reports", 4), group("thumbs", 1, 1, 1))
SEEN = running(*WANTED.groups.values())
RECORD = RecordView(
    *(100, "d", "ready", 4, 7, 2, 0, NOW - 50, NOW, False, ""), (SlotView(0, 100, "id", "shop.zip", NOW - 9, NOW + 1),)
)


def found(observed=SEEN) -> rows.Rows:
    return rows.replica_rows(summarise(WANTED, observed, revision=1), now=NOW)


def test_a_record_of_the_same_process_says_what_happens_now() -> None:
    row = rows.with_record(found()["reports.0"], RECORD)
    assert (row["busy"], row["processed"], row["failed"]) == (1, 7, 2)
    assert row["tasks"] == [["id", "shop.zip", NOW - 9, NOW + 1]]
    assert row["startedAt"] == NOW - 50


@pytest.mark.parametrize("record", [None, replace(RECORD, pid=999)])
def test_a_record_of_another_process_says_nothing(record: RecordView | None) -> None:
    row = found()["reports.0"]
    assert rows.with_record(row, record) == row


def test_work_is_no_reason_to_look_at_everything_again_and_a_new_state_is() -> None:
    at_work = replace(RECORD, processed=99, tasks=(), heartbeat_at=NOW + 1, busy_seconds=5.0)
    assert rows.mark(at_work) == rows.mark(RECORD)
    for change in ({"state": "draining"}, {"hold": True}, {"pid": 5}, {"slots": 5}, {"note": "x"}, {"digest": "e"}):
        assert rows.mark(replace(RECORD, **change)) != rows.mark(RECORD)
    assert rows.mark(None) != rows.mark(RECORD)


def test_sums_leave_out_fleets_own_programs_and_count_trouble() -> None:
    seen = but(SEEN, "thumbs.1", state=State.FAILED, pid=None)
    seen = but(seen, "thumbs.2", trouble=Trouble.STUCK, busy=1)
    status = summarise(WANTED, seen, revision=3)
    groups = rows.group_rows(status, WANTED)
    groups["fleet-broker"] = {**groups["reports"], "system": True}
    head = rows.head(status, budget=9, good=2)
    all_of_it = rows.sums(head, groups, found(seen))
    assert all_of_it["groups"] == 2
    assert all_of_it["replicas"]["desired"] == 4
    assert (all_of_it["slots"], all_of_it["troubled"]) == ({"busy": 1, "desired": 7}, 2)


def test_what_the_controller_decided_stands_beside_the_group() -> None:
    said = {"thumbs": {"need": 5, "wants": 6, "share": 4, "gets": 4, "why": "short", "burst": False}}
    look = {"groups": said, "at": NOW, "budget": 9, "squeezed": True, "note": ""}
    status = summarise(WANTED, SEEN, revision=1)
    head, groups = rows.decided(rows.head(status, budget=9, good=1), rows.group_rows(status, WANTED), look)
    assert head["controller"]["squeezed"]
    assert (groups["thumbs"]["need"], groups["thumbs"]["why"]) == (5, "short")
    assert groups["reports"]["need"] is None
    slots = rows.slots_now(groups, found(but(SEEN, "thumbs.0", busy=1)))
    assert rows.decided(head, groups, None)[0]["controller"] is None
    assert slots == {"reports": (0, 4, 4, None, None), "thumbs": (1, 3, 3, 5, 4)}


def test_queues_say_who_takes_from_them_and_what_nobody_takes() -> None:
    groups = {"a": {"queues": ["x", "y"]}, "b": {"queues": ["y"]}}
    asked = Backlog({"x": QueueSample(3, NOW), "z": QueueSample(1)}, None, "slow")
    document = rows.queue_rows(asked, groups)
    assert document["queues"] == {
        "x": {"waiting": 3, "oldestAt": NOW, "groups": ["a"]},
        "y": {"waiting": None, "oldestAt": None, "groups": ["a", "b"]},
        "z": {"waiting": 1, "oldestAt": None, "groups": []},
    }
    assert (document["known"], document["problem"], rows.queue_rows(None, groups)["known"]) == (True, "slow", False)


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.integers()))
def test_what_changed_leads_from_one_to_the_other(before: dict[str, int], after: dict[str, int]) -> None:
    fresh, gone = rows.changed(before, after)
    assert {name: value for name, value in {**before, **fresh}.items() if name not in gone} == after
    assert all(before.get(name) != value for name, value in fresh.items())


# --- the last hour


def test_the_hour_is_an_hour_and_no_more() -> None:
    hour = Hour()
    for number in range(KEPT + 30):
        assert hour.add(NOW + number * EVERY_SECONDS, {"a": (number, 1, 1, None, None)})
        assert not hour.add(NOW + number * EVERY_SECONDS + 1, {"a": (0, 0, 0, 0, 0)})
    points = hour.document()["groups"]["a"]
    assert (len(points), points[-1][:2]) == (KEPT, [NOW + (KEPT + 29) * EVERY_SECONDS, KEPT + 29])


def test_a_group_that_is_gone_stays_for_its_hour() -> None:
    hour = Hour()
    hour.add(NOW, {"a": (1, 1, 1, None, None)})
    hour.add(NOW + 1800, {"b": (1, 1, 1, None, None)})
    assert set(hour.document()["groups"]) == {"a", "b"}
    hour.add(NOW + 3700, {"b": (1, 1, 1, None, None)})
    assert set(hour.document()["groups"]) == {"b"}


# --- what is hidden


def test_passwords_are_taken_out_of_every_text() -> None:
    document = {"redis://u:pw1@h/0": [1, None, ("x amqp://u:pw2@h// y", {"k": "https://h/?token=pw3"})]}
    assert "pw" not in str(shown(document))
    assert shown({"a": ["b", 1.5, True]}) == {"a": ["b", 1.5, True]}
    assert shown("half \ud800 ä") == "half ? ä"


TEXTS = st.text(max_size=20) | st.sampled_from(["redis://u:pw1@h/0", "half \ud800", "\\ud800", "a://b", "ä😀", "://"])
DOCUMENTS = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(DOCUMENTS)
def test_what_pages_get_as_text_is_what_may_be_shown(document: Any) -> None:
    assert json.loads(shown_json(document)) == json.loads(json.dumps(shown(document)))
    assert "pw1" not in shown_json(document)


def test_the_first_manifest_is_all_new() -> None:
    assert difference({}, {"a": {"b": 1}}) == [{"path": "a.b", "was": None, "is": "1"}]
    assert difference({}, {}) == []


def test_a_difference_hides_variables_and_secrets_and_says_that_they_changed() -> None:
    before = {"env": {"A": "1", "B": "2"}, "broker": {"password": "x"}, "n": 1, "gone": {"deep": [1]}, "same": "s"}
    after = {"env": {"A": "9", "C": "3"}, "broker": {"password": "y"}, "n": 2, "same": "s", "empty": {}}
    assert difference(before, after) == [
        {"path": "env.A", "was": "**", "is": "**"},
        {"path": "env.C", "was": None, "is": "**"},
        {"path": "broker.password", "was": "**", "is": "**"},
        {"path": "n", "was": "1", "is": "2"},
        {"path": "empty", "was": None, "is": "{}"},
        {"path": "env.B", "was": "**", "is": None},
        {"path": "gone.deep", "was": "[1]", "is": None},
    ]
