"""What each end and each start of a task adds to the counters beside the record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.replica.task_counters import ENDS, OTHER, TaskCounts, read_counters
from fleet.worker.loop.counting import TaskCounting
from fleet.worker.task.call import Outcome

RAN = SimpleNamespace(started_at=100.0, ended_at=100.02)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[TaskCounting]:
    made = TaskCounting(tmp_path / "records" / "thumbs.0.rec")
    yield made
    made.counters.close()


def job(**facts: Any) -> Any:
    given = {"ending": None, "handle": RAN, "limit_seconds": 30.0, "due": 0.0, "call": SimpleNamespace(name="shop.zip")}
    message = SimpleNamespace(sent_at=None)
    return SimpleNamespace(**{**given, "message": message, **facts})


def counted(counting: TaskCounting, tmp_path: Path) -> dict[str, TaskCounts]:
    counting.every_second(0.0)
    view = read_counters(tmp_path / "records" / "thumbs.0.tasks")
    assert view is not None
    return dict(view.tasks)


@pytest.mark.parametrize(
    ("state", "ending", "end", "run_seconds"),
    [
        ("success", None, "done", 0.02),
        ("ignored", None, "done", 0.02),
        ("failure", None, "failed", 0.02),
        ("retry", None, "retried", 0.02),
        ("dead", None, "dead", 0.02),
        ("failure", "timeout", "failed", 30.0),
        ("failure", "revoked", "revoked", None),
        ("failure", "expired", "revoked", None),
        ("failure", "terminated", "revoked", None),
        ("failure", "lost", "lost", None),
    ],
)
def test_each_end_is_one_of_six(
    counting: TaskCounting, tmp_path: Path, state: Any, ending: str | None, end: str, run_seconds: float | None
) -> None:
    counting.on_end(job(ending=ending), Outcome(state))
    found = counted(counting, tmp_path)["shop.zip"]
    assert dict(zip(ENDS, found.ends, strict=True)) == {**dict.fromkeys(ENDS, 0), end: 1}
    assert found.run.count == (run_seconds is not None)
    assert found.run.sum_seconds == pytest.approx(run_seconds or 0.0)


@pytest.mark.parametrize("facts", [{"message": None}, {"ending": "unknown"}])
def test_what_is_no_task_of_this_app_has_no_name(counting: TaskCounting, tmp_path: Path, facts: dict[str, Any]) -> None:
    counting.on_end(job(**facts), Outcome("dead"))
    assert counted(counting, tmp_path).keys() == {OTHER}


def test_a_message_that_goes_back_is_no_end(counting: TaskCounting, tmp_path: Path) -> None:
    counting.on_end(job(), Outcome("requeue"))
    assert counted(counting, tmp_path) == {}


@pytest.mark.parametrize("handle", [None, SimpleNamespace(started_at=0.0, ended_at=5.0)])
def test_a_run_that_never_began_has_no_time(counting: TaskCounting, tmp_path: Path, handle: Any) -> None:
    counting.on_end(job(handle=handle), Outcome("failure"))
    assert counted(counting, tmp_path)["shop.zip"].run.count == 0


@pytest.mark.parametrize(
    ("sent", "due", "waited"),
    [
        (-100.0, 0.0, 100.0),
        (-100.0, -20.0, 20.0),  # a date counts from the date on
        (+50.0, 0.0, 0.0),  # the sender's clock is ahead
    ],
)
def test_a_wait_is_from_the_send_or_the_date(
    counting: TaskCounting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: float, due: float, waited: float
) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    counting.on_start(job(message=SimpleNamespace(sent_at=now + sent), due=now + due if due else 0.0))
    wait = counted(counting, tmp_path)["shop.zip"].wait
    assert (wait.count, wait.sum_seconds) == (1, waited)


def test_without_a_moment_of_sending_no_wait_is_known(counting: TaskCounting, tmp_path: Path) -> None:
    counting.on_start(job())
    counting.on_start(job(message=None))
    assert counted(counting, tmp_path) == {}
