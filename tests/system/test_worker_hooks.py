"""Hooks and signals of a Celery app for ends that the task cannot tell itself, under every pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError

from fleet.core.spec import TaskPolicy
from tests.conftest import eventually
from tests.system.remote import RemoteShop
from tests.system.test_events import Watcher, watcher
from tests.system.test_worker_celery import APP, WAIT

__all__ = ["watcher"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

HOOKS = '''
import json, sys
from celery import Task
from celery.app.task import Context
from celery.worker.request import Request


def tell(what, **facts):
    write(json.dumps({"what": what, "pid": os.getpid(), **facts}))


class Hooked(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        tell("on_failure", id=task_id, exc=repr(exc), args=args, einfo=str(einfo.traceback), own=self.request.id)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        tell("after_return", id=task_id, status=status, retval=repr(retval))


@app.task(base=Hooked, time_limit=0.5)
def over(seconds):
    """In pieces: a thread or a greenlet is ended between two of them."""
    for _ in range(int(seconds * 50)):
        time.sleep(0.02)


@app.task(base=Hooked)
def leaves():
    sys.exit(3)


def failed(sender, task_id, exception, traceback, einfo, **kw):
    tell("failed", id=task_id, exc=repr(exception), traceback=traceback is not None, einfo=str(einfo.traceback),
         own=sender.request.id)


def attributes(request, kind):
    """Names of attributes that are missing."""
    wanted = [name for name in dir(kind) if not name.startswith("_")]
    return [name for name in wanted if not hasattr(request, name)]


def received(sender, request, **kw):
    tell("received", id=request.id, missing=attributes(request, Request), info=request.info()["name"],
         name=request.name, type=request.type, groups=list(request.groups), stamps=dict(request.stamps),
         limits=list(request.time_limits), app=request.app.main, exchange=request.delivery_info["exchange"])


def revoked(sender, request, terminated, signum, expired, **kw):
    tell("revoked", id=request.id, missing=attributes(request, Context), task=request.task, terminated=terminated,
         signum=signum, expired=expired)


def creates(sender, **kw):
    tell("creates")


def beats(sender, **kw):
    tell("beats")


signals.task_failure.connect(failed)
signals.task_received.connect(received)
signals.task_revoked.connect(revoked)
signals.worker_before_create_process.connect(creates)
signals.heartbeat_sent.connect(beats)
'''


class HookShop(RemoteShop):
    """What its app told."""

    def __init__(self, folder: Path, url: str, results: str) -> None:
        super().__init__(folder, url, results)
        (folder / "capp.py").write_text(APP + HOOKS)

    def told(self, what: str, id: str = "") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.lines() if line.startswith("{")]
        return [line for line in lines if line["what"] == what and id in ("", line.get("id"))]

    def first(self, what: str, id: str = "") -> dict[str, Any]:
        return eventually(lambda: self.told(what, id))[0]


@pytest.fixture
def shop(redis_url: str, short_tmp: Path) -> Iterator[HookShop]:
    made = HookShop(short_tmp, redis_url, redis_url)
    yield made
    made.close()


every_pool = pytest.mark.parametrize("pool", ["solo", "prefork", "threads", "gevent", "eventlet", "asyncio"])


@every_pool
def test_a_hard_limit_calls_the_hooks_of_the_task(shop: HookShop, pool: str) -> None:
    worker = shop.worker(pool, 1)
    result = shop.send("over", 60)
    with pytest.raises(TimeLimitExceeded) as raised:
        result.get(**WAIT)
    assert raised.value.args[0] == 0.5
    failure, end, signal = (shop.first(what, result.id) for what in ("on_failure", "after_return", "failed"))
    assert failure["exc"] == end["retval"] == signal["exc"] == "TimeLimitExceeded(0.5)"
    assert (failure["args"], failure["own"], end["status"]) == ([60], result.id, "FAILURE")
    assert "TimeLimitExceeded" in failure["einfo"]
    assert "TimeLimitExceeded" in signal["einfo"]
    assert signal["traceback"]
    if pool == "solo":
        assert worker.wait() == 75
        worker.start()
    assert shop.send("add", 1, 1).get(**WAIT) == 2
    assert [len(shop.told(what, result.id)) for what in ("on_failure", "after_return", "failed")] == [1, 1, 1]


@pytest.mark.parametrize(("task", "error"), [("dies", WorkerLostError), ("leaves", WorkerLostError)])
def test_a_lost_child_has_a_traceback_in_its_signal(shop: HookShop, task: str, error: type[Exception]) -> None:
    shop.worker("prefork", 1, task=TaskPolicy(max_attempts=1))
    result = shop.send(task)
    with pytest.raises(error):
        result.get(**WAIT)
    signal = shop.first("failed", result.id)
    assert signal["traceback"]
    assert "WorkerLostError" in signal["einfo"]
    assert signal["own"] == result.id


@every_pool
def test_an_exit_and_a_reject_have_a_traceback_in_their_signal(shop: HookShop, pool: str) -> None:
    shop.worker(pool, 1)
    gone, rejected = shop.send("leaves"), shop.send("rejects", False)
    for result in (gone, rejected):
        with pytest.raises(Exception, match=r"3|no"):
            result.get(**WAIT)
    signals = [shop.first("failed", result.id) for result in (gone, rejected)]
    assert all(signal["traceback"] for signal in signals)
    assert "WorkerLostError" in signals[0]["einfo"]
    assert "Reject" in signals[1]["einfo"]
    assert "rejects" in signals[1]["einfo"], "the traceback leads into the task"


@every_pool
def test_requests_in_signals_have_every_attribute_of_celerys(shop: HookShop, pool: str) -> None:
    shop.worker(pool, 1)
    run = shop.sig("add", 1, 2).apply_async(stamped_headers=["tenant"], tenant="t1", time_limit=50, shadow="shown")
    assert run.get(**WAIT) == 3
    expired = shop.send("add", 1, 1, expires=-5)
    with pytest.raises(TaskRevokedError):
        expired.get(**WAIT)
    told = shop.first("received", run.id)
    assert told["missing"] == []
    assert (told["name"], told["type"], told["info"], told["app"]) == ("shown", "capp.add", "capp.add", "capp")
    assert told["limits"] == [50, None]
    assert told["exchange"] == ""
    told = shop.first("revoked", expired.id)
    assert told["missing"] == []
    assert (told["task"], told["terminated"], told["signum"], told["expired"]) == ("capp.add", False, None, True)


@every_pool
def test_a_task_that_was_terminated_tells_by_which_signal(shop: HookShop, watcher: Watcher, pool: str) -> None:
    worker = shop.worker(pool, 1)
    eventually(lambda: [shop.ask("enable_events"), shop.ask("heartbeat"), watcher.of("worker-heartbeat")][2])
    result = shop.send("over", 60, time_limit=600)
    eventually(lambda: shop.ask("active"))
    shop.ask("revoke", task_id=result.id, terminate=True, signal="INT")
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)
    told = shop.first("revoked", result.id)
    assert (told["terminated"], told["signum"], told["expired"]) == (True, 2, False)
    event = eventually(lambda: watcher.of("task-revoked", result.id))
    assert event is not None
    assert (event["terminated"], event["signum"]) == (True, 2)
    if pool == "solo":
        assert worker.wait() == 75


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_each_child_of_prefork_is_announced_in_the_worker(shop: HookShop, method: str) -> None:
    worker = shop.worker("prefork", 2, pool_options={"start_method": method})
    eventually(lambda: len(shop.lines()) and shop.lines().count("signal worker_process_init") == 2)
    assert [told["pid"] for told in shop.told("creates")] == [worker.pid] * 2


@every_pool
def test_heartbeats_are_told_to_the_app(shop: HookShop, pool: str) -> None:
    worker = shop.worker(pool, 1)
    shop.ask("heartbeat")
    assert shop.first("beats")["pid"] == worker.pid
