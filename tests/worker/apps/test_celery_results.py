"""Results on Redis are stored in one round trip, exactly as Celery stores them in two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, signals, states
from celery._state import _set_task_join_will_block
from celery.app.trace import reset_worker_optimizations
from celery.backends.redis import RedisBackend

from fleet.worker.apps.celery import CeleryApplication
from fleet.worker.apps.celery_results import ResultWriter, store_at_once
from fleet.worker.apps.deferred_result import Deferral
from fleet.worker.task.call import Call, EncodedResult

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


def without_scripts(url: str, server: redis.Redis, *, user: str) -> str:
    """The address of the server for a new user who may do all but run scripts."""
    server.acl_setuser(user, enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-@scripting"])
    return url.replace("redis://", f"redis://{user}:x@")


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
    backend = backend_of(without_scripts(url, server, user="plain"))
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


# ---- results that slots leave to the loop


def kept(backend: Any, task_id: str, value: Any) -> EncodedResult:
    """A success as a slot leaves it."""
    with Deferral(task_id) as deferral:
        backend.store_result(task_id, value, states.SUCCESS)
    assert deferral.result is not None
    return deferral.result


@pytest.fixture
def writer(url: str) -> Iterator[tuple[Any, ResultWriter]]:
    backend = backend_of(url)
    store_at_once(backend)
    made = ResultWriter(backend.app)
    yield backend, made
    made._hang_up()


def test_many_are_stored_at_once_as_celery_stores_each(
    writer: tuple[Any, ResultWriter], url: str, server: redis.Redis
) -> None:
    backend, writes = writer
    usual = backend_of(url)
    results = [kept(backend, f"id-{number}", {"n": number}) for number in range(50)]
    assert not server.keys("*")
    assert all(writes.store(results))
    usual.store_result("usual", {"n": 7}, states.SUCCESS)
    first, second = stored(server, usual, "usual"), stored(server, backend, "id-7")
    assert {**first, "task_id": 0, "date_done": 0} == {**second, "task_id": 0, "date_done": 0}
    assert abs(server.ttl(results[7].key) - server.ttl(usual.get_key_for_task("usual"))) <= 60
    assert len(server.keys("*")) == 51


def test_a_success_that_is_there_stays_and_whoever_waits_is_told(
    writer: tuple[Any, ResultWriter], server: redis.Redis
) -> None:
    backend, writes = writer
    late = kept(backend, "one", "late")
    backend.store_result("one", "first", states.SUCCESS)
    listener = server.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(backend.get_key_for_task("two"))
    listener.get_message(timeout=10)
    assert list(writes.store([late, kept(backend, "two", 2)])) == [True, True]
    assert stored(server, backend, "one")["result"] == "first"
    message = listener.get_message(timeout=10)
    assert message is not None
    assert json.loads(message["data"])["result"] == 2
    listener.close()


def test_what_other_tasks_store_meanwhile_and_other_states_are_stored_at_once(
    writer: tuple[Any, ResultWriter], server: redis.Redis
) -> None:
    backend, _ = writer
    with Deferral("one") as deferral:
        backend.store_result("one", None, states.STARTED)
        backend.store_result("other", 1, states.SUCCESS)
        assert stored(server, backend, "one")["status"] == states.STARTED
        assert stored(server, backend, "other")["result"] == 1
        backend.store_result("one", ValueError("no"), states.FAILURE)
    assert deferral.result is None
    assert stored(server, backend, "one")["status"] == states.FAILURE


def test_the_loop_sends_the_script_again_and_connects_again(
    writer: tuple[Any, ResultWriter], server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, writes = writer
    assert all(writes.store([kept(backend, "one", 1)]))
    assert writes.fds()
    server.script_flush()
    assert all(writes.store([kept(backend, "two", 2), kept(backend, "three", 3)]))
    server.client_kill_filter(_type="normal", skipme=True)
    four = kept(backend, "four", 4)
    assert list(writes.store([four])) == [False]
    assert list(writes.store([four])) == [False]  # slots do it now, for a while
    monkeypatch.setattr(writes, "_again_at", 0.0)
    assert all(writes.store([four]))
    assert stored(server, backend, "four")["result"] == 4


def test_where_scripts_are_refused_slots_store_for_good(
    url: str, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    backend = backend_of(without_scripts(url, server, user="slots"))
    writes = ResultWriter(backend.app)
    try:
        for _ in range(2):
            assert list(writes.store([EncodedResult("key", "value", 0)])) == [False]
        assert caplog.text.count("each slot stores its results itself") == 1
    finally:
        writes._hang_up()
        server.acl_deluser("slots")


class Running:
    """A Celery app with results on Redis, in a worker with this pool. Its task adds."""

    def __init__(self, url: str, pool: str, **task: Any) -> None:
        self.app = Celery("running", broker="memory://", backend=url, set_as_current=False)

        @self.app.task(name="results.add", shared=False, **task)
        def add(x: int, y: int) -> int:
            if y == 0:
                raise ValueError("nothing to add")
            return x + y

        self.application = CeleryApplication(self.app)
        self.application.prepare_worker("unit@here", pool=pool, concurrency=1, broker_url="memory://")
        self.application.prepare_process("unit@here")

    def run(self, task_id: str, *args: int, embed: Any = None, **headers: Any) -> Any:
        every = {"task": "results.add", "id": task_id, "retries": 0, **headers}
        body = json.dumps([args, {}, embed or {}]).encode()
        return self.application.run(Call(task_id, "results.add", every, body, queue="q"))


@pytest.fixture
def running(url: str) -> Iterator[Any]:
    made: list[Running] = []

    def begin(pool: str, **task: Any) -> Running:
        made.append(Running(url, pool, **task))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_BROKER_URL", "")
        yield begin
    for one in made:
        reset_worker_optimizations(one.app)
    _set_task_join_will_block(False)


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_a_slot_leaves_its_success_to_the_loop(running: Any, server: redis.Redis, pool: str) -> None:
    worker = running(pool)
    outcome = worker.run("one", 1, 2)
    assert outcome.state == "success"
    assert not server.keys("*")
    store = worker.application.result_store()
    assert all(store.store([outcome.unstored]))
    assert worker.app.AsyncResult("one").result == 3
    store._hang_up()


def test_a_slot_stores_what_the_loop_could_not_store(running: Any) -> None:
    worker = running("prefork")
    worker.application.store_result(worker.run("one", 1, 2).unstored)
    assert worker.app.AsyncResult("one").result == 3


def test_a_failure_is_stored_in_the_slot(running: Any) -> None:
    worker = running("prefork")
    assert worker.run("one", 1, 0).unstored is None
    assert worker.app.AsyncResult("one").state == states.FAILURE


def test_a_pool_class_of_the_user_and_ignored_results_leave_nothing(running: Any) -> None:
    assert running("custom").run("one", 1, 2).unstored is None
    assert running("prefork", ignore_result=True).run("two", 1, 2).unstored is None


@pytest.mark.parametrize("how", ["on_success", "after_return", "task_success", "task_postrun"])
def test_what_runs_after_a_success_finds_the_result(running: Any, how: str) -> None:
    found: list[str] = []

    def look(*_: Any, **__: Any) -> None:
        found.append(worker.app.AsyncResult("one").state)

    hooks = {how: look} if how.startswith(("on_", "after_")) else {}
    worker = running("prefork", **hooks)
    if not hooks:
        getattr(signals, how).connect(look, weak=False)
    try:
        assert worker.run("one", 1, 2).unstored is None
    finally:
        if not hooks:
            getattr(signals, how).disconnect(look)
    assert found == [states.SUCCESS]


def test_a_member_of_a_chord_stores_its_result_before_it_counts_itself(running: Any) -> None:
    worker = running("prefork")
    body = worker.app.signature("results.add", args=(1, 1))
    outcome = worker.run("one", 1, 2, embed={"chord": dict(body, chord_size=2)}, group="g", root_id="r")
    assert outcome.unstored is None
    assert worker.app.AsyncResult("one").state == states.SUCCESS
