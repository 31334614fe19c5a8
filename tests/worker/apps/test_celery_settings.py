"""The list of Celery's settings and hooks is whole, and a worker says what of an app has no effect."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import celery.signals
import pytest
from celery import Celery, Task
from celery.app.defaults import NAMESPACES, flatten
from celery.utils.dispatch import Signal

from fleet.worker.apps.celery_settings import (
    HOOKS,
    SETTINGS,
    TRANSPORT_OPTIONS,
    Way,
    warnings_for,
    with_current_table,
)

WORKER_PAGE = Path(__file__).parents[3] / "docs" / "worker.md"


def names(rows: object) -> list[str]:
    return [name for row in rows for name in row.names]  # type: ignore[attr-defined]


def test_every_setting_of_the_installed_celery_is_in_the_list_once() -> None:
    assert Counter(names(SETTINGS)) == Counter(name for name, _ in flatten(NAMESPACES))


def test_every_signal_of_the_installed_celery_is_in_the_list() -> None:
    signals = {name for name, value in vars(celery.signals).items() if isinstance(value, Signal)}
    listed = {name for name in names(HOOKS) if "." not in name and not name.startswith("@")}
    assert listed == signals


def test_the_page_shows_the_list_of_today() -> None:
    text = WORKER_PAGE.read_text(encoding="utf-8")
    assert text == with_current_table(text), "run: python -m fleet.worker.apps.celery_settings docs/worker.md"


def warned(app: Celery, transport: str = "redis", pool: str = "prefork") -> list[str]:
    return list(warnings_for(app, transport=transport, pool=pool))


def plain_app() -> Celery:
    return Celery("settings", broker="memory://", set_as_current=False)


def test_an_app_as_it_comes_is_told_nothing() -> None:
    assert warned(plain_app()) == []


@pytest.mark.parametrize("name", [name for row in SETTINGS for name in row.names if row.way in (Way.INSTEAD, Way.NONE)])
def test_what_has_no_effect_is_named(name: str) -> None:
    if name == "broker_url":  # nearly every app sets it for its producers
        return
    app = plain_app()
    app.conf[name] = "something of its own"
    [text] = warned(app)
    assert f"setting {name} has no effect" in text


@pytest.mark.parametrize("name", [name for row in SETTINGS for name in row.names if row.way is Way.ALWAYS])
def test_what_is_always_so_is_not_worth_a_warning(name: str) -> None:
    app = plain_app()
    app.conf[name] = True
    assert warned(app) == []


@pytest.mark.parametrize("name", ["worker_max_tasks_per_child", "worker_max_memory_per_child"])
def test_limits_of_children_are_named_where_a_pool_has_none(name: str) -> None:
    app = plain_app()
    app.conf[name] = 100
    assert warned(app, pool="prefork") == []
    assert "the threads pool has no children" in warned(app, pool="threads")[0]


def test_a_default_that_is_written_down_is_no_difference() -> None:
    app = plain_app()
    app.conf.worker_prefetch_multiplier = 4
    assert warned(app) == []


@pytest.mark.parametrize("name", names(TRANSPORT_OPTIONS))
def test_transport_options_that_no_channel_reads_are_named(name: str) -> None:
    app = plain_app()
    app.conf.broker_transport_options = {name: 1}
    [text] = warned(app, "rediss")
    assert f"broker transport option {name} " in text
    assert warned(app, "filesystem") == [], "kombu's own channels read them"


def test_bootsteps_and_requests_of_its_own_are_named() -> None:
    app = plain_app()
    app.steps["worker"].add(object)

    class Own(Task):  # type: ignore[misc]
        Request = "proj.requests:Loud"

    def loud() -> None: ...

    app.task(loud, base=Own, name="loud", shared=False)
    app.finalize()
    steps, request = warned(app)
    assert "app.steps" in steps
    assert "Task.Request" in request
    assert "(loud)" in request
