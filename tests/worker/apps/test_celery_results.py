"""Results on Redis are stored in one round trip, exactly as Celery stores them in two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, states
from celery.backends.redis import RedisBackend

from fleet.worker.apps.celery_results import store_at_once

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),  # by Celery itself
]


class Counting(redis.Connection):
    """Counts what is sent."""

    sent = 0

    def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        Counting.sent += 1
        super().send_packed_command(*args, **kwargs)


def backend_of(url: str, *, serializer: str = "json", expires: int | None = 60) -> Any:
    app = Celery("results", broker="memory://", backend=url, set_as_current=False)
    app.conf.update(result_serializer=serializer, result_expires=expires, accept_content=["json", "pickle"])
    return app.backend


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    yield redis_url
    redis.Redis.from_url(redis_url).flushdb()


@pytest.fixture
def server(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def stored(server: redis.Redis, backend: Any, task_id: str) -> Any:
    return json.loads(server.get(backend.get_key_for_task(task_id)))


def test_what_is_stored_is_what_celery_stores(url: str, server: redis.Redis) -> None:
    usual, quick = backend_of(url), backend_of(url)
    store_at_once(quick)
    cases: list[tuple[Any, str]] = [
        ({"a": [1, None]}, states.SUCCESS),
        (ValueError("no"), states.FAILURE),
        ({"pid": 1}, states.STARTED),
        ("ü", states.SUCCESS),
    ]
    for number, (value, state) in enumerate(cases):
        for name, backend in (("usual", usual), ("quick", quick)):
            backend.store_result(f"{name}-{number}", value, state)
        first, second = (stored(server, usual, f"{name}-{number}") for name in ("usual", "quick"))
        assert {**first, "task_id": 0, "date_done": 0} == {**second, "task_id": 0, "date_done": 0}
        assert first.keys() == second.keys()
        lives = [server.ttl(usual.get_key_for_task(f"{name}-{number}")) for name in ("usual", "quick")]
        assert abs(lives[0] - lives[1]) <= 60
        assert min(lives) > 0
        assert quick.get_task_meta(f"quick-{number}")["status"] == state


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_success_is_never_replaced_and_other_states_are(url: str, serializer: str) -> None:
    backend = backend_of(url, serializer=serializer)
    store_at_once(backend)
    backend.store_result("one", None, states.STARTED)
    backend.store_result("one", 1, states.SUCCESS)
    assert backend.get_task_meta("one", cache=False)["result"] == 1
    backend.store_result("one", ValueError("late"), states.FAILURE)
    backend.store_result("one", 2, states.SUCCESS)
    assert backend.get_task_meta("one", cache=False)["result"] == 1


def test_results_that_never_expire_stay(url: str, server: redis.Redis) -> None:
    backend = backend_of(url, expires=None)
    store_at_once(backend)
    backend.store_result("one", 1, states.SUCCESS)
    assert server.ttl(backend.get_key_for_task("one")) == -1


def test_whoever_waits_is_told(url: str, server: redis.Redis) -> None:
    backend = backend_of(url)
    store_at_once(backend)
    listener = server.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(backend.get_key_for_task("one"))
    listener.get_message(timeout=10)
    backend.store_result("one", 1, states.SUCCESS)
    message = listener.get_message(timeout=10)
    assert message is not None
    assert json.loads(message["data"])["result"] == 1
    listener.close()


def test_it_takes_one_round_trip(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(url)
    backend.client.connection_pool.connection_class = Counting
    store_at_once(backend)
    backend.store_result("zero", None, states.SUCCESS)
    monkeypatch.setattr(Counting, "sent", 0)
    for task_id in ("one", "two", "three"):
        backend.store_result(task_id, None, states.STARTED)
        backend.store_result(task_id, 1, states.SUCCESS)
    assert Counting.sent == 6


def test_a_server_that_forgets_its_scripts_gets_them_again(url: str, server: redis.Redis) -> None:
    backend = backend_of(url)
    store_at_once(backend)
    backend.store_result("one", 1, states.SUCCESS)
    server.script_flush()
    backend.store_result("two", 2, states.SUCCESS)
    assert stored(server, backend, "two")["result"] == 2


def test_a_server_that_runs_no_scripts_gets_results_in_celerys_way(
    url: str, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    server.acl_setuser(
        "plain", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-@scripting"]
    )
    backend = backend_of(url.replace("redis://", "redis://plain:x@"))
    store_at_once(backend)
    try:
        for task_id in ("one", "two"):
            backend.store_result(task_id, 1, states.SUCCESS)
            assert stored(server, backend, task_id)["result"] == 1
        assert caplog.text.count("results are stored in two steps") == 1
    finally:
        server.acl_deluser("plain")


def test_after_a_lost_connection_the_next_result_is_stored(url: str, server: redis.Redis) -> None:
    backend = backend_of(url)
    store_at_once(backend)
    backend.store_result("one", 1, states.SUCCESS)
    server.client_kill_filter(_type="normal", skipme=True)
    backend.store_result("two", 2, states.SUCCESS)
    assert stored(server, backend, "two")["result"] == 2


def test_a_result_too_large_is_refused_as_celery_refuses_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(url)
    store_at_once(backend)
    monkeypatch.setattr(backend, "_MAX_STR_VALUE_SIZE", 1000)
    with pytest.raises(Exception, match="too large"):
        backend.store_result("one", "x" * 1000, states.SUCCESS)


def test_a_backend_with_a_way_of_its_own_keeps_it(url: str) -> None:
    class Own(RedisBackend):  # type: ignore[misc]
        def _set(self, key: Any, value: Any, expires: Any = None) -> None:
            self.client.set(f"own-{key!r}", value)

    backend = Own(app=Celery("own", set_as_current=False), url=url)
    store_at_once(backend)
    assert "_store_result" not in vars(backend)


@pytest.mark.parametrize("error", [redis.TimeoutError("late"), redis.ResponseError("OOM command not allowed")])
def test_a_passing_fault_is_no_reason_to_give_up_scripts(
    url: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    backend = backend_of(url)
    store_at_once(backend)

    def fails(*_: Any) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("fleet.worker.apps.celery_results._evaluate", fails)
        backend.store_result("one", 1, states.SUCCESS)
    assert stored(server, backend, "one")["result"] == 1
    assert not backend._store_result._refused
    assert "two steps" not in caplog.text
