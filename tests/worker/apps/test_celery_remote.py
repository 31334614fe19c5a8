"""What a Celery app says of itself to ``celery inspect``, and the commands that it brings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from celery import Celery
from celery.utils.serialization import jsonify
from celery.worker.control import Panel, control_command
from kombu import Queue
from kombu.utils.encoding import safe_repr

from fleet.worker.apps.celery_remote import CeleryRemote

URLS = {"broker_url", "broker_read_url", "broker_write_url", "result_backend"}


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("told", broker="redis://:pw@nowhere/0", include=["shop.tasks"], set_as_current=False)
    made.conf.update(
        worker_disable_prefetch=True,
        result_expires=timedelta(hours=2),
        task_queues=[Queue("a", routing_key="a")],
        beat_schedule={"often": {"task": "t", "schedule": timedelta(seconds=3)}},
        result_backend_transport_options={"password": "hidden?"},
    )
    yield made
    made.close()


@pytest.mark.parametrize("with_defaults", [False, True])
def test_settings_are_told_as_celery_prints_them(app: Celery, with_defaults: bool) -> None:
    told = CeleryRemote(app).settings(with_defaults=with_defaults)
    celery = jsonify(app.conf.table(with_defaults=with_defaults), unknown_type_filter=safe_repr)
    assert told["result_backend_transport_options"] == {"password": "********"}
    assert told["include"] == ["shop.tasks"]
    assert told["worker_disable_prefetch"] is True
    assert told["result_expires"] == "2:00:00"
    assert "pw" not in told["broker_url"]
    differs = {name for name in told if told[name] != celery[name]}
    assert differs <= URLS | {"result_backend_transport_options"}
    assert set(celery) - set(told) == {name for name in celery if name.startswith("__")}


def test_commands_of_the_app_get_it_and_the_name_of_the_worker(app: Celery) -> None:
    @control_command(name="told_twice")
    def twice(state, number):  # type: ignore[no-untyped-def]
        return {"ok": [state.app.main, state.hostname, 2 * number]}

    try:
        own = CeleryRemote(app).own_commands("shop.0@here")
        assert own["told_twice"](number=4) == {"ok": ["told", "shop.0@here", 8]}
        assert "ping" not in own
    finally:
        del Panel.data["told_twice"], Panel.meta["told_twice"]


def test_a_queue_is_defined_as_celery_would_and_one_of_the_apps_own_stays(app: Celery) -> None:
    remote = CeleryRemote(app)
    remote.define_queue("news", exchange="press", exchange_type="topic", routing_key="n.#")
    remote.define_queue("a", exchange="press", exchange_type="topic", routing_key="n.#")
    found = app.amqp.queues["news"]
    assert (found.exchange.name, found.exchange.type, found.routing_key) == ("press", "topic", "n.#")
    assert app.amqp.queues["a"].routing_key == "a"
