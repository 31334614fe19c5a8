"""From a record and a living or gone process to one word: every word, and what keeps it from being said too early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.core.health import PASSES, PATIENCE, Condition, Patience, Probe, judge
from fleet.replica.record import RecordView, SlotView

NOW = 10_000.0
TASK = SlotView(0, 43, "id-1", "shop.thumb", NOW - 60, 0.0)
READY = RecordView(
    pid=42,
    digest="9f31c2ab",
    state="ready",
    slots=2,
    processed=0,
    failed=0,
    retried=0,
    started_at=NOW - 600,
    heartbeat_at=NOW - 0.5,
    hold=False,
    note="",
    tasks=(),
    line_up=True,
    consumed_at=NOW - 0.5,
    state_at=NOW - 590,
)


def told(*, lives: bool = True, patience: Patience = PATIENCE, **changes: Any) -> tuple[Condition, str]:
    health = judge(replace(READY, **changes), lives=lives, now=NOW, patience=patience)
    return health.condition, health.reason


def test_a_worker_that_fetches_is_ready() -> None:
    assert told() == (Condition.READY, "")
    assert told(tasks=(TASK,)) == (Condition.READY, "shop.thumb[id-1] for 1m")


def test_a_worker_without_a_free_slot_is_busy_until_its_last_limit() -> None:
    tasks = (replace(TASK, until=NOW + 5), replace(TASK, index=1, until=NOW + 9))
    health = judge(replace(READY, tasks=tasks, consumed_at=NOW - 4000), lives=True, now=NOW)

    assert (health.condition, health.busy_until) == (Condition.BUSY, NOW + 9)
    assert health.reason == "shop.thumb[id-1] for 1m and 1 more"


def test_a_task_without_a_limit_has_no_deadline() -> None:
    tasks = (TASK, replace(TASK, index=1, until=NOW + 9))

    assert judge(replace(READY, tasks=tasks), lives=True, now=NOW).busy_until is None


def test_a_silent_worker_is_stuck_although_its_process_lives() -> None:
    silent: dict[str, Any] = {"heartbeat_at": NOW - 31}

    assert told(**silent) == (Condition.STUCK, "no heartbeat for 31s")
    assert told(**silent, tasks=(TASK,)) == (Condition.STUCK, "no heartbeat for 31s; runs shop.thumb")
    assert told(**silent, state="draining")[0] is Condition.STUCK
    assert told(**silent, patience=Patience(silence_seconds=60))[0] is Condition.READY


def test_a_task_far_beyond_its_limit_is_stuck() -> None:
    assert told(tasks=(replace(TASK, until=NOW - 29),))[0] is Condition.READY
    late = told(tasks=(replace(TASK, until=NOW - 31), replace(TASK, index=1, until=NOW - 90, task_id="id-2")))
    assert late == (Condition.STUCK, "shop.thumb[id-2] is 1m30s over its time limit")


def test_free_slots_and_no_answer_to_a_fetch_is_not_consuming() -> None:
    assert told(consumed_at=NOW - 31) == (Condition.NOT_CONSUMING, "no fetch was answered for 31s")
    reason = "no connection to the broker, nothing fetched for 31s"
    assert told(consumed_at=NOW - 31, line_up=False) == (Condition.NOT_CONSUMING, reason)
    assert told(consumed_at=NOW - 31, tasks=(TASK,))[0] is Condition.NOT_CONSUMING


@pytest.mark.parametrize("excuse", [{"freed_at": NOW - 1}, {"state_at": NOW - 1}, {"sated": True}])
def test_who_could_or_would_not_fetch_till_now_is_not_blamed(excuse: dict[str, Any]) -> None:
    assert told(consumed_at=NOW - 4000, **excuse)[0] is Condition.READY


def test_a_worker_that_starts_has_all_the_time_it_needs() -> None:
    assert told(state="starting", heartbeat_at=NOW - 600) == (Condition.STARTING, "for 10m")
    assert told(state="starting", note="crashed 2 times; starts again in 4 s")[1].startswith("crashed 2 times")


def test_a_worker_that_takes_nothing_because_it_was_told_to() -> None:
    assert told(state="draining", note="1 task left, 9 s") == (Condition.DRAINING, "1 task left, 9 s")
    assert told(state="draining", hold=True, note="held by an operator") == (Condition.HELD, "held by an operator")
    assert told(state="stopped") == (Condition.DRAINING, "")


def test_a_process_that_is_gone() -> None:
    assert told(lives=False) == (Condition.DEAD, "its process is gone; last heard of 0s ago")
    assert told(lives=False, tasks=(TASK,))[1].endswith("ago, with 1 task running")
    assert told(lives=False, state="stopped", state_at=NOW - 5) == (Condition.STOPPED, "5s ago")
    assert told(lives=False, state="failed", note="parked: 9 crashes") == (Condition.FAILED, "parked: 9 crashes")


def test_a_program_that_keeps_no_record_is_alive_at_best() -> None:
    mute: dict[str, Any] = {"foreign": True, "line_up": False, "consumed_at": 0.0, "heartbeat_at": NOW - 600}

    assert told(**mute) == (Condition.ALIVE, "for 10m; it keeps no record")
    assert told(**mute, lives=False)[0] is Condition.DEAD


def test_a_program_that_is_about_to_write_its_own_record_is_starting() -> None:
    assert told(foreign=True, awaited=True) == (Condition.STARTING, "for 10m")


def test_without_a_record_nothing_is_known() -> None:
    assert judge(None, lives=False, now=NOW).condition is Condition.UNKNOWN


@pytest.mark.parametrize("condition", list(Condition))
def test_what_each_probe_accepts(condition: Condition) -> None:
    left_alone = {"alive", "starting", "ready", "busy", "draining", "held"}

    assert (condition in PASSES[Probe.LIVE]) == (condition in left_alone | {"not consuming"})
    assert (condition in PASSES[Probe.READY]) == (condition in {"alive", "ready", "busy"})
    assert (condition in PASSES[Probe.PROGRESS]) == (condition in left_alone)
