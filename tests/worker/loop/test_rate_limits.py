"""Rate limits on a clock of the test's own."""

from __future__ import annotations

import pytest

from fleet.broker.delivery import Delivery
from fleet.worker.loop.rate_limits import MOST_WAITING, RateLimits, per_second
from fleet.worker.task.call import Call, TaskPolicy
from fleet.worker.task.job import Job


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def job(number: int, name: str = "t") -> Job:
    task_id = f"id{number}"
    return Job(Delivery(str(number), "q", b""), None, Call(task_id, name, {}, b""), TaskPolicy(), (task_id, 0))


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("10/s", 10),
        ("120/m", 2),
        ("7200/h", 2),
        ("3", 3),
        (4, 4),
        (0.5, 0.5),
        (None, None),
        ("", None),
        (0, None),
        ("0/m", None),
    ],
)
def test_rates_are_written_as_in_celery(written: object, rate: float | None) -> None:
    assert per_second(written) == rate


@pytest.mark.parametrize("written", ["often", "10/d", "-1/s", "nan", "inf", "/s", object()])
def test_what_is_no_rate_says_how_to_write_one(written: object) -> None:
    with pytest.raises(ValueError, match="write 10/s"):
        per_second(written)


def test_runs_are_an_interval_apart_and_keep_their_order() -> None:
    clock = Clock()
    rates = RateLimits({"t": 2.0}, clock)
    jobs = [job(number) for number in range(4)]
    assert [rates.pause_seconds(each) for each in jobs] == [0.0, 0.5, 1.0, 1.5]
    clock.now += 0.5
    assert [rates.pause_seconds(each) for each in jobs[1:]] == [0.0, 0.5, 1.0]
    clock.now += 0.5
    assert rates.pause_seconds(jobs[2]) == 0.0


def test_pauses_are_not_saved_up() -> None:
    clock = Clock()
    rates = RateLimits({"t": 1.0}, clock)
    assert rates.pause_seconds(job(0)) == 0.0
    clock.now += 60
    assert rates.pause_seconds(job(1)) == 0.0
    assert rates.pause_seconds(job(2)) == 1.0


def test_other_tasks_are_not_held_back() -> None:
    rates = RateLimits({"t": 0.001}, Clock())
    rates.pause_seconds(job(0))
    assert rates.pause_seconds(job(1)) > 0
    assert rates.pause_seconds(job(2, "free")) == 0.0


def test_only_so_many_wait_here() -> None:
    clock = Clock()
    rates = RateLimits({"t": 1.0}, clock)
    for number in range(MOST_WAITING):
        rates.pause_seconds(job(number))
    fullness = [rates.full]
    rates.pause_seconds(job(MOST_WAITING))
    fullness.append(rates.full)
    clock.now += MOST_WAITING + 2.0  # all of them were revoked: nobody came for its turn
    assert [*fullness, rates.full] == [False, True, False]


def test_what_is_given_back_frees_its_turn() -> None:
    clock = Clock()
    rates = RateLimits({"t": 1.0}, clock)
    for number in range(5):
        rates.pause_seconds(job(number))
    rates.forget_waiting()
    assert rates.pause_seconds(job(9)) == 1.0


def test_a_limit_is_changed_and_lifted() -> None:
    rates = RateLimits({"t": 1.0}, Clock())
    rates.pause_seconds(job(0))
    rates.limit("t", 10.0)
    assert rates.pause_seconds(job(1)) == 0.0
    assert rates.pause_seconds(job(2)) == pytest.approx(0.1)
    rates.limit("t", None)
    assert rates.pause_seconds(job(2)) == 0.0
    assert len(rates) == 0
