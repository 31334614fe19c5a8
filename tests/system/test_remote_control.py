"""``celery inspect``, ``control`` and ``status`` work against fleet workers, whatever they are busy with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.exceptions import TaskRevokedError

from fleet.core.spec import RemoteControlSpec
from tests.conftest import PATIENCE, eventually
from tests.servers import RedisServer
from tests.system.remote import NODE, RemoteShop, ids
from tests.system.test_worker_celery import WAIT

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, redis_url: str, short_tmp: Path) -> Iterator[RemoteShop]:
    made = RemoteShop(short_tmp, request.getfixturevalue(f"{request.param}_url"), redis_url)
    yield made
    made.close()


@pytest.fixture
def redis_shop(redis_url: str, short_tmp: Path) -> Iterator[RemoteShop]:
    made = RemoteShop(short_tmp, redis_url, redis_url)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("pool", "slots", "task"), [("solo", 1, "spins"), ("prefork", 2, "sleeps"), ("threads", 2, "sleeps")]
)
def test_celerys_command_line_inspects_a_busy_worker(shop: RemoteShop, pool: str, slots: int, task: str) -> None:
    worker = shop.worker(pool, slots)
    busy = shop.send(task, 60)
    eventually(lambda: task in shop.lines())
    [running] = shop.inspect("active")
    assert running["id"] == busy.id
    assert running["args"] == [60]
    assert running["hostname"] == NODE
    assert running["delivery_info"]["routing_key"] == shop.queue
    stats = shop.inspect("stats") if pool == "threads" else shop.ask("stats")
    assert stats["pid"] == worker.pid
    assert stats["total"] == {f"capp.{task}": 1}
    assert {"max-concurrency", "processes", "timeouts", "max-tasks-per-child", "implementation"} <= set(stats["pool"])
    assert stats["pool"]["max-concurrency"] == stats["prefetch_count"] == slots
    assert {"hostname", "port", "transport", "userid", "virtual_host"} <= set(stats["broker"])
    assert "password" not in stats["broker"]
    assert {"utime", "stime", "maxrss"} <= set(stats["rusage"])
    assert int(stats["clock"]) > 0
    assert NODE in shop.celery("status", "-t", "120", "-d", NODE)


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads", "gevent", "eventlet", "asyncio"])
def test_a_running_task_is_ended_in_every_pool(redis_shop: RemoteShop, pool: str) -> None:
    worker = redis_shop.worker(pool, 1)
    result = redis_shop.send("sleeps", 15)
    eventually(lambda: "sleeps" in redis_shop.lines())
    assert redis_shop.ask("ping") == {"ok": "pong"}
    assert redis_shop.ask("revoke", task_id=result.id, terminate=True) == {"ok": f"terminate: {result.id}"}
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)
    if pool in ("solo", "threads", "asyncio"):  # a sleeping thread is not ended from inside
        assert worker.wait() == 75
        worker.start()
    assert redis_shop.send("add", 1, 1).get(**WAIT) == 2


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_can_be_reached_again_after_its_broker_was_away(pool: str, redis_url: str, short_tmp: Path) -> None:
    server = RedisServer().start()
    shop = RemoteShop(short_tmp, server.url, redis_url)
    try:
        shop.worker(pool, 1)
        assert shop.ask("enable_events") == {"ok": "task events enabled"}
        server.stop()
        eventually(lambda: "lost" in shop.workers[0].log() or "away" in shop.workers[0].log())
        server.start()
        eventually(lambda: NODE in shop.celery("status", "-t", "3", "-d", NODE))
        assert shop.control("enable_events") == {"ok": "task events already enabled"}
    finally:
        shop.close()
        server.remove()


def test_every_question_has_its_answer(shop: RemoteShop) -> None:
    shop.worker("threads", 1)
    busy = shop.send("sleeps", 60)
    eventually(lambda: "sleeps" in shop.lines())
    inspect = shop.app.control.inspect(destination=[NODE], timeout=PATIENCE)
    assert inspect.query_task(busy.id)[NODE][busy.id][0] == "active"
    assert inspect.query_task("nobody") == {NODE: {}}
    assert "capp.paced [rate_limit=4/s]" in inspect.registered()[NODE]
    assert "capp.add [name=capp.add max_retries=3]" in inspect.registered("name", "max_retries")[NODE]
    assert not any(name.startswith("celery.") for name in inspect.registered()[NODE])
    [queue] = inspect.active_queues()[NODE]
    assert queue["name"] == queue["routing_key"] == queue["exchange"]["name"] == shop.queue
    assert inspect.clock()[NODE]["clock"] > 0
    assert "celery" in inspect.report()[NODE]["ok"]
    assert inspect.revoked() == {NODE: []}
    assert "no command" in shop.ask("memdump")["error"]
    assert shop.ask("hello", from_node="x", revoked=["gone"])["revoked"] == ["gone"]
    assert inspect.revoked() == {NODE: ["gone"]}
    assert inspect.memsample()[NODE].endswith("MB")


def test_settings_are_told_without_their_secrets(redis_shop: RemoteShop) -> None:
    redis_shop.worker("threads", 1)
    settings = redis_shop.inspect("conf")
    assert settings["task_default_queue"] == redis_shop.queue
    assert "task_acks_late" not in settings
    told = str(redis_shop.app.control.inspect(destination=[NODE], timeout=PATIENCE).conf(with_defaults=True))
    assert "task_acks_late" in told
    assert "in-options" not in told
    assert "in-settings" not in told


def test_commands_reach_the_nodes_that_are_named_or_match(redis_shop: RemoteShop) -> None:
    first = redis_shop.worker("threads", 1)
    redis_shop.worker("solo", 1, replica="shop.1")
    other = NODE.replace("shop.0", "shop.1")
    assert redis_shop.app.control.ping(destination=[other], timeout=PATIENCE) == [{other: {"ok": "pong"}}]
    [reply] = redis_shop.app.control.broadcast(
        "ping", pattern="shopfleet.shop.0@*", matcher="glob", reply=True, timeout=PATIENCE, limit=1
    )
    assert reply == {NODE: {"ok": "pong"}}
    assert first.term() == 0


def test_a_worker_whose_manifest_switches_remote_control_off_listens_to_nobody(redis_shop: RemoteShop) -> None:
    off = redis_shop.worker("threads", 1, replica="quiet.0", remote_control=RemoteControlSpec(enabled=False))
    redis_shop.worker("threads", 1)
    with redis.Redis.from_url(redis_shop.url) as client:
        bound = b" ".join(client.smembers("_kombu.binding.celery.pidbox"))
    assert NODE.encode() in bound
    assert b"quiet.0" not in bound  # a name of its own: bindings of other tests' workers may be left on that server
    assert redis_shop.send("add", 1, 1).get(**WAIT) == 2
    assert off.term() == 0


def test_slots_are_added_and_given_up(shop: RemoteShop) -> None:
    shop.worker("prefork", 1)
    assert shop.control("pool_grow", "2") == {"ok": "pool will grow"}
    results = [shop.send("sleeps", 60) for _ in range(3)]
    eventually(lambda: shop.lines().count("sleeps") == 3)
    for result in results:
        assert shop.ask("revoke", task_id=result.id, terminate=True)["ok"] == f"terminate: {result.id}"
    for result in results:
        with pytest.raises(TaskRevokedError):
            result.get(**WAIT)
    assert shop.ask("pool_shrink", n=2) == {"ok": "pool will shrink"}
    assert "at least one" in shop.ask("pool_shrink", n=1)["error"]
    assert shop.ask("stats")["pool"]["max-concurrency"] == 1
    assert shop.ask("pool_restart") == {"ok": "reload started"}
    assert shop.send("add", 1, 2).get(**WAIT) == 3


def test_autoscale_follows_the_work(redis_shop: RemoteShop) -> None:
    redis_shop.worker("threads", 1)
    assert redis_shop.control("autoscale", "3", "1") == {"ok": "autoscale now max=3 min=1"}
    for _ in range(5):
        redis_shop.send("sleeps", 60)
    eventually(lambda: redis_shop.lines().count("sleeps") == 3)
    assert redis_shop.ask("stats")["autoscaler"]["current"] == 3
    assert "autoscale" in redis_shop.ask("pool_grow", n=1)["error"]
    assert "more than" in redis_shop.ask("autoscale", max=1, min=2)["error"]


def test_a_pool_that_cannot_says_which_can(redis_shop: RemoteShop) -> None:
    redis_shop.worker("solo", 1)
    error = redis_shop.control("pool_grow", "1")["error"]
    assert "the solo pool cannot" in error
    assert "prefork" in error
    assert "prefork" in redis_shop.ask("autoscale", max=3, min=1)["error"]


def test_queues_are_added_and_cancelled(shop: RemoteShop) -> None:
    shop.worker("solo", 1)
    second = f"{shop.queue}-second"
    assert shop.control("add_consumer", second) == {"ok": f"add consumer {second}"}
    assert shop.send("add", 2, 3, queue=second).get(**WAIT) == 5
    names = [queue["name"] for queue in shop.inspect("active_queues")]
    assert names == [shop.queue, second]
    assert shop.ask("cancel_consumer", queue=shop.queue) == {"ok": f"no longer consuming from {shop.queue}"}
    unread = shop.send("add", 1, 1)
    assert shop.send("add", 4, 5, queue=second).get(**WAIT) == 9
    assert not unread.ready()
    bound = f"{shop.queue}-bound"
    assert "ok" in shop.control("add_consumer", bound, f"{bound}-exchange", "direct", "news")
    [queue] = [queue for queue in shop.inspect("active_queues") if queue["name"] == bound]
    assert (queue["exchange"]["name"], queue["routing_key"]) == (f"{bound}-exchange", "news")
    assert shop.send("add", 6, 7, exchange=f"{bound}-exchange", routing_key="news").get(**WAIT) == 13


def test_commands_of_the_app_are_answered_as_celerys_worker_would(shop: RemoteShop) -> None:
    worker = shop.worker("solo", 1)
    assert shop.inspect("where_are_you") == {"node": NODE, "pid": worker.pid, "app": "capp"}
    assert shop.control("add_up", "2", "3") == {"ok": 5}


def test_stamped_tasks_are_revoked_by_their_stamp(shop: RemoteShop) -> None:
    shop.worker("threads", 1)
    told = shop.control("revoke_by_stamped_headers", "owner=ann")
    assert "flagged as revoked" in told["ok"]
    stamps = {"stamped_headers": ["owner"], "stamps": {"owner": ["ann"]}}
    with pytest.raises(TaskRevokedError):
        shop.send("add", 1, 1, headers=stamps).get(**WAIT)
    assert shop.send("add", 1, 2, headers={**stamps, "stamps": {"owner": ["bob"]}}).get(**WAIT) == 3


def test_a_task_waiting_for_its_date_is_revoked(shop: RemoteShop) -> None:
    shop.worker("prefork", 1)
    told: list[str] = []
    for countdown in (3, 20, 80):  # until the command is there before the date
        result = shop.send("add", 1, 1, countdown=countdown)
        told.append(result.id)
        assert "flagged" in shop.control("revoke", result.id)["ok"]
        result.get(**WAIT, propagate=False)
        if result.state != "SUCCESS":
            break
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)
    assert shop.ask("revoked") == told


def test_revoked_tasks_are_remembered_over_a_restart(redis_shop: RemoteShop) -> None:
    worker = redis_shop.worker("solo", 1)
    result = redis_shop.send("add", 1, 1, countdown=8)
    assert redis_shop.ask("revoke", task_id=[result.id, "another"])
    worker.kill()
    worker.start()
    assert redis_shop.ask("revoked") == [result.id, "another"]
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)


def test_a_draining_worker_can_still_be_told_to_end_its_task(shop: RemoteShop) -> None:
    """Celery's worker does not hear this: celery #8417."""
    worker = shop.worker("prefork", 1)
    result = shop.send("sleeps", 60)
    eventually(lambda: "sleeps" in shop.lines())
    worker.signal(15)
    worker.wait_state("draining")
    assert ids(shop.ask("active")) == [result.id]
    assert shop.ask("revoke", task_id=result.id, terminate=True) == {"ok": f"terminate: {result.id}"}
    assert worker.wait() == 0
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)


def test_a_task_ended_by_kill_is_revoked_and_not_run_again(redis_shop: RemoteShop) -> None:
    """``sleeps`` is acknowledged late: as a crash it would run again."""
    redis_shop.worker("prefork", 1)
    result = redis_shop.send("sleeps", 60)
    eventually(lambda: "sleeps" in redis_shop.lines())
    assert redis_shop.control("terminate", "KILL", result.id) == {"ok": f"terminate: {result.id}"}
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)
    assert redis_shop.send("add", 1, 1).get(**WAIT) == 2
    assert redis_shop.lines().count("sleeps") == 1


def test_time_limits_are_changed(redis_shop: RemoteShop) -> None:
    redis_shop.worker("prefork", 1)
    assert redis_shop.control("time_limit", "capp.sleeps", "0", "0.5") == {"ok": "time limits set successfully"}
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        redis_shop.send("sleeps", 60).get(**WAIT)
    assert redis_shop.ask("time_limit", task_name="nobody", hard=1) == {"error": "unknown task"}


def test_rates_are_kept_and_changed(redis_shop: RemoteShop) -> None:
    redis_shop.worker("threads", 4)
    results = [redis_shop.send("paced", number) for number in range(6)]
    assert [result.get(**WAIT) for result in results] == list(range(6))
    starts = sorted(float(line.split()[1]) for line in redis_shop.lines() if line.startswith("paced"))
    assert starts[-1] - starts[0] > 0.5, "six starts at four a second cannot be closer, however late the first was"
    assert redis_shop.control("rate_limit", "capp.paced", "1/h") == {"ok": "new rate limit set successfully"}
    redis_shop.send("paced", 0).get(**WAIT)
    waiting = redis_shop.send("paced", 1)
    eventually(lambda: waiting.id in ids(redis_shop.ask("reserved")))
    assert redis_shop.ask("rate_limit", task_name="capp.paced", rate_limit="0") == {
        "ok": "rate limit disabled successfully"
    }
    assert waiting.get(**WAIT) == 1
    assert "10/s" in redis_shop.ask("rate_limit", task_name="capp.paced", rate_limit="often")["error"]


def test_a_solo_worker_answers_before_it_ends_its_task_with_its_process(shop: RemoteShop) -> None:
    worker = shop.worker("solo", 1)
    result = shop.send("spins", 60)
    eventually(lambda: "spins" in shop.lines())
    assert shop.ask("terminate", task_id=[result.id], signal="KILL") == {"ok": f"terminate: {result.id}"}
    assert worker.wait() == 75
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)
    worker.start()
    before = time.monotonic()
    assert shop.send("add", 1, 1).get(**WAIT) == 2
    assert shop.control("shutdown") == {"ok": "stopping"}
    assert worker.wait() == 0
    assert time.monotonic() > before
