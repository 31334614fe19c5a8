"""The registry: plain functions, their retries, and what is sent."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet import Retry, Tasks
from fleet.errors import FleetError
from fleet.tasks import RetryPolicy
from fleet.worker.apps.registry import RegistryApplication
from fleet.worker.task.call import Call

tasks = Tasks("shop")


@tasks.task
def double(number: int) -> int:
    return number * 2


@tasks.task(max_retries=2, backoff_seconds=10, backoff_max_seconds=15, jitter=False, retry_for=[ValueError])
def broken(kind: str) -> None:
    raise {"value": ValueError, "key": KeyError}[kind]("as asked")


@tasks.task(acks="early", queue="slow", time_limit_seconds=5)
def early() -> None: ...


@tasks.task
async def later(box: list[int]) -> None:
    box.append(1)


@tasks.task
def tells_who(expected: list[Any]) -> None:
    current = tasks.current
    assert current is not None
    assert [current.name, current.queue, current.retries] == expected


@tasks.task(max_retries=1, jitter=False)
def asks(seconds: float | None) -> None:
    raise Retry("not yet", after_seconds=seconds)


def call(name: str, *args: Any, retries: int = 0) -> Call:
    body = json.dumps([args, {}, {}]).encode()
    full = f"{__name__}.{name}"
    return Call("id-1", full, {"task": full, "id": "id-1", "retries": retries}, body, queue="q")


app = RegistryApplication(tasks)


def test_a_task_stays_a_plain_function() -> None:
    assert double(4) == 8
    assert double.__name__ == "double"
    assert pickle.loads(pickle.dumps(double)) is double


def test_a_task_may_be_mapped_over_a_process_pool() -> None:
    with ProcessPoolExecutor(1) as pool:
        assert list(pool.map(double, range(3))) == [0, 2, 4]


def test_names_are_module_and_function() -> None:
    assert double.name == f"{__name__}.double"
    assert double.name in tasks.names()
    assert tasks.get(double.name) is double


def test_the_same_name_twice_is_refused() -> None:
    registry = Tasks("x")
    registry.task(name="a")(len)
    with pytest.raises(ValueError, match="already"):
        registry.task(name="a")(len)


def test_wrong_acks_are_refused() -> None:
    with pytest.raises(ValueError, match="early"):
        Tasks("x").task(acks="never")(len)


def test_success() -> None:
    assert app.run(call("double", 2)).state == "success"


def test_a_coroutine_function_is_run_to_its_end() -> None:
    assert app.run(call("later", [])).state == "success"


def test_a_task_knows_its_own_message() -> None:
    assert app.run(call("tells_who", [f"{__name__}.tells_who", "q", 0])).state == "success"
    assert tasks.current is None


@pytest.mark.parametrize(("retries", "pause"), [(0, 10.0), (1, 15.0)])
def test_an_error_is_retried_with_growing_pauses(retries: int, pause: float) -> None:
    outcome = app.run(call("broken", "value", retries=retries))
    assert (outcome.state, outcome.after_seconds) == ("retry", pause)
    assert outcome.error == "ValueError: as asked"


def test_after_the_last_retry_it_is_dead() -> None:
    outcome = app.run(call("broken", "value", retries=2))
    assert outcome.state == "dead"
    assert "ValueError: as asked" in outcome.traceback


def test_an_error_that_is_not_worth_another_try_is_dead_at_once() -> None:
    assert app.run(call("broken", "key")).state == "dead"


def test_retry_says_when() -> None:
    assert app.run(call("asks", 7)).after_seconds == 7
    assert app.run(call("asks", None)).after_seconds == 1.0
    assert app.run(call("asks", 7, retries=1)).state == "dead"


def test_arguments_that_do_not_fit_are_an_error_of_the_task() -> None:
    outcome = app.run(call("double"))
    assert outcome.state == "retry"
    assert "missing 1 required positional argument" in outcome.error


@pytest.mark.parametrize("body", [b"{]", b"[]", b"[1,2,3]", b'[[],"x",{}]', b"\xff"])
def test_a_body_that_cannot_be_read_is_dead(body: bytes) -> None:
    outcome = app.run(call("double")._replace(body=body))
    assert outcome.state == "dead"


def test_pickle_is_never_read() -> None:
    message = call("double")._replace(body=pickle.dumps(([1], {}, {})), content_type="application/x-python-serialize")
    outcome = app.run(message)
    assert outcome.state == "dead"
    assert "not accepted" in outcome.error


def test_an_unknown_task_is_dead() -> None:
    assert app.run(call("nobody")).state == "dead"


def test_policies() -> None:
    policy = app.policy(early.name)
    assert (policy.late, policy.time_limit_seconds) == (False, 5)
    assert app.policy(double.name).late


def test_jitter_takes_up_to_half_of_the_pause() -> None:
    policy = RetryPolicy()
    assert policy.backoff.seconds(3, lambda: 0.0) == 8.0
    assert policy.backoff.seconds(3, lambda: 1.0) == 4.0
    assert policy.backoff.seconds(10_000, lambda: 0.0) == 600.0


def test_without_a_broker_sending_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_BROKER_URL", raising=False)
    with pytest.raises(FleetError) as caught:
        double.send(1)
    assert "FLEET_BROKER_URL" in caught.value.hint


def test_what_is_sent_is_a_celery_message(redis_url: str) -> None:
    import kombu

    registry = Tasks("sender", redis_url, queue="tasks-sent")
    send = registry.task(name="t")(double.function)
    ids = [send.send(1), send.options(queue="tasks-other", priority=9, countdown=60, expires=90).send(2)]
    ids.append(registry.send("elsewhere", [3], {"x": 1}, queue="tasks-sent", eta=datetime(2030, 1, 1, tzinfo=UTC)))
    with kombu.Connection(redis_url) as connection:
        first, third = (connection.SimpleQueue("tasks-sent").get(timeout=120) for _ in range(2))
        second = connection.SimpleQueue("tasks-other").get(timeout=120)
    assert [message.headers["id"] for message in (first, second, third)] == ids
    assert first.headers["task"] == "t"
    assert first.decode()[0] == [1]
    assert second.headers["eta"] < second.headers["expires"]
    assert third.headers["eta"].startswith("2030-01-01")
    assert third.decode()[1] == {"x": 1}
    assert registry._publisher is not None
    registry._publisher[1].close()


def test_importing_the_registry_pulls_in_no_broker_library() -> None:
    code = (
        "import sys; from fleet import Tasks; t = Tasks('x'); t.task(len, name='x') if False else None\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'kombu', 'redis', 'celery', 'billiard', 'gevent'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
