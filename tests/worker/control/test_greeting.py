"""What a worker that starts takes in of what others say is revoked."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.worker.control.greeting import SECONDS, VARIABLE, learn, seconds_to_wait
from fleet.worker.loop.revoked import Revoked


def learned(*replies: Any, known: tuple[str, ...] = ()) -> list[str]:
    revoked = Revoked()
    revoked.add(known)
    learn(replies, revoked, node="f.shop.1@here")
    return revoked.ids()


def test_ids_of_all_others_are_taken_in() -> None:
    told = {"celery@there": {"revoked": ["a", "b"], "clock": 7}}, {"f.shop.0@here": {"revoked": ["b", "c"], "clock": 9}}
    assert learned(*told, known=("z", "a")) == ["z", "a", "b", "c"]


def test_older_workers_tell_since_when() -> None:
    assert learned({"celery@there": {"revoked": {"a": 12.5}}}) == ["a"]


@pytest.mark.parametrize(
    "reply",
    [
        {"f.shop.1@here": {"revoked": ["own"]}},
        {"celery@there": None},
        {"celery@there": {"error": "busy"}},
        {"celery@there": {"revoked": "a"}},
        {"celery@there": {"revoked": [None, 7, ["x"], "", "x" * 1000]}},
        {"celery@there": ["a"]},
        "a",
        None,
    ],
)
def test_what_says_nothing_teaches_nothing(reply: Any) -> None:
    assert learned(reply) == []


@pytest.mark.parametrize(("text", "seconds"), [("", SECONDS), ("0", 0.0), ("2.5", 2.5), ("-1", 0.0), ("soon", SECONDS)])
def test_how_long_it_waits_is_a_setting(text: str, seconds: float) -> None:
    assert seconds_to_wait({VARIABLE: text}) == seconds
