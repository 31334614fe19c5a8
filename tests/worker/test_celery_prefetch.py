"""How many messages Celery's own worker holds as a member of a fleet, and what of the manifest is applied in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery

from fleet.worker.celery_member import include
from fleet.worker.celery_member.steps import apply_settings, hold_no_more_than_slots


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


def named() -> None:
    """A task."""


@pytest.mark.parametrize(("acks", "late"), [("late", True), ("early", False)])
@pytest.mark.parametrize("of_app", [True, False])
def test_what_celery_worker_has_no_option_for_is_applied_in_it(
    monkeypatch: pytest.MonkeyPatch, acks: str, late: bool, of_app: bool
) -> None:
    monkeypatch.setenv("FLEET_TASK_ACKS", acks)
    monkeypatch.setenv("FLEET_VISIBILITY_TIMEOUT", "7200")
    app = Celery("shop", set_as_current=False)
    app.conf.update(task_acks_late=of_app, broker_transport_options={"visibility_timeout": 5, "sep": ":"})
    plain, own = (
        app.task(named, name="plain", shared=False),
        app.task(named, name="own", shared=False, acks_late=not late),
    )
    apply_settings(app)
    assert (app.conf.task_acks_late, plain.acks_late, own.acks_late) == (late, late, late)
    assert app.conf.broker_transport_options == {"visibility_timeout": 7200.0, "sep": ":"}


def test_without_a_word_of_the_manifest_the_app_keeps_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_TASK_ACKS", raising=False)
    monkeypatch.delenv("FLEET_VISIBILITY_TIMEOUT", raising=False)
    app = Celery("shop", set_as_current=False)
    app.conf.update(task_acks_late=True, broker_transport_options={"visibility_timeout": 5})
    apply_settings(app)
    assert (app.conf.task_acks_late, app.conf.broker_transport_options) == (True, {"visibility_timeout": 5})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"FLEET_TASK_ACKS": "late"}, "task.acks"),
        ({"FLEET_VISIBILITY_TIMEOUT": "60"}, "spec.broker.visibilityTimeout"),
        ({}, ""),
    ],
)
def test_a_worker_that_cannot_apply_it_does_not_run(given: dict[str, str], said: str, tmp_path: Path) -> None:
    """The app has a module named fleet of its own, so that nothing of fleet can be imported."""
    (tmp_path / "fleet.py").touch()
    folder = Path(include.__file__).parent
    code = f"import os, sys; sys.path[:0] = [{str(tmp_path)!r}, {str(folder)!r}]\n"
    code += "os.environ['FLEET_PID'] = str(os.getpid()); import fleet_celery_member; print('runs')"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={**clean, **given}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == ((1, "") if said else (0, "runs\n"))
    assert "keeps no record" in done.stderr
    assert said in done.stderr
