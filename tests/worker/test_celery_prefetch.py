"""How many messages Celery's own worker holds as a member of a fleet."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from celery import Celery

from fleet.worker.celery_member.steps import hold_no_more_than_slots


@pytest.mark.parametrize(
    ("settings", "arguments", "multiplier"),
    [
        ({}, [], 1),
        ({"worker_concurrency": 3}, [], 1),
        ({"worker_prefetch_multiplier": 4}, [], 4),
        ({"CELERYD_PREFETCH_MULTIPLIER": 4}, [], 4),
        ({}, ["--prefetch-multiplier=4"], 4),
    ],
)
def test_one_for_each_slot_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], arguments: list[str], multiplier: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["celery", "worker", *arguments])
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings)
    worker = SimpleNamespace(app=app, prefetch_multiplier=4)
    hold_no_more_than_slots(worker)
    assert worker.prefetch_multiplier == multiplier
