"""Which entries of the audit are news, and of what kind."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from fleet.core.manifest.notify_models import PROBLEMS, NewsKind
from fleet.operate.notify.news import news_of

ENDED = {"wayBack": False, "of": 3, "done": 3, "revision": 7}
ROWS: list[tuple[dict[str, Any], str | None]] = [
    (
        {"event": "apply.started", "wayBack": False, "steps": [["start a.0", ""]], "summary": {"start": 1}},
        "rollout.started",
    ),
    ({"event": "apply.started", "wayBack": False, "steps": []}, None),
    ({"event": "apply.ended", "outcome": "done", **ENDED}, "rollout.done"),
    ({"event": "sync.ended", "outcome": "done", **ENDED}, "rollout.done"),
    ({"event": "apply.ended", "outcome": "failed", **ENDED}, "rollout.failed"),
    ({"event": "apply.ended", "outcome": "not ready", **ENDED}, "rollout.failed"),
    ({"event": "apply.ended", "outcome": "interrupted", **ENDED}, None),
    ({"event": "apply.ended", "outcome": "done", **ENDED, "of": 0}, None),
    ({"event": "rollback.started", "wayBack": True, "steps": [["x", ""]]}, None),
    ({"event": "rollback.ended", "outcome": "done", **ENDED, "wayBack": True}, "rollback.done"),
    ({"event": "rollback.ended", "outcome": "failed", **ENDED, "wayBack": True}, "rollback.failed"),
    ({"event": "restart.ended", "outcome": "failed", "of": 1}, None),
    ({"event": "down.ended", "outcome": "done", "of": 4}, None),
    ({"event": "worker.crashed", "replica": "a.0"}, "crash"),
    ({"event": "worker.parked", "replica": "a.0"}, "parked"),
    ({"event": "heal.started", "replica": "a.0"}, "heal"),
    ({"event": "heal.parked", "replica": "a.0"}, "parked"),
    ({"event": "heal.warned", "replica": "a.0"}, "heal.warned"),
    ({"event": "heal.failed"}, "heal.failed"),
    ({"event": "controller.stuck", "replica": "fleet-controller.0"}, "controller.stuck"),
    ({"event": "sync.applied", "commit": "abc"}, "sync.done"),
    ({"event": "sync.failed", "commit": "abc"}, "sync.failed"),
    ({"event": "step.done", "replica": "a.0"}, None),
    ({"event": "balance.moved"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("entry", "kind"), ROWS)
def test_what_an_entry_tells(entry: dict[str, Any], kind: str | None) -> None:
    news = news_of({"at": 1.0, "by": "ana", **entry})

    assert (news.kind if news is not None else None) == kind
    if news is not None:
        assert news.group == str(entry.get("replica", "")).partition(".")[0]
        assert news.is_problem == (kind in PROBLEMS)


def test_every_kind_that_a_manifest_may_name_can_happen() -> None:
    assert {kind for _, kind in ROWS if kind} == set(get_args(NewsKind))


def test_a_reason_is_one_line() -> None:
    news = news_of({"at": 1.0, "event": "worker.crashed", "replica": "a.0", "reason": "two\nlines\x1b[31m"})

    assert news is not None
    assert news.reason.isprintable()
