"""A Celery app as an app: what the tracer's states become, and what the probe says. Without a broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery._state import _set_task_join_will_block
from celery.app.trace import reset_worker_optimizations
from celery.exceptions import Ignore, Reject

import fleet
from fleet.errors import FleetError
from fleet.worker.apps.celery import CeleryApplication
from fleet.worker.apps.load import import_object, wrap
from fleet.worker.task.call import Call
from pools.errors import HardTimeLimit, PoolError, SlotLost, SoftTimeLimit

app = Celery("unit", broker="memory://", backend="cache+memory://", set_as_current=False)
app.conf.task_acks_on_failure_or_timeout = False


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="end", acks_late=True)
def end(how: str) -> None:
    raise {
        "error": ValueError("as asked"),
        "ignore": Ignore(),
        "reject": Reject("no"),
        "requeue": Reject("no", requeue=True),
        "memory": MemoryError("full"),
    }[how]


@app.task(name="again", bind=True, max_retries=2)
def again(self: Any) -> None:
    raise self.retry(countdown=0)


@pytest.fixture(scope="module")
def application() -> Iterator[CeleryApplication]:
    """A worker's app in this process; what Celery changes for a whole process is changed back."""
    made = CeleryApplication(app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_BROKER_URL", "")
        made.prepare_worker("unit@here", pool="solo", concurrency=1, broker_url="memory://")
        made.prepare_process("unit@here")
        yield made
        reset_worker_optimizations(app)
        _set_task_join_will_block(False)


def call(task: str, *args: Any, id: str = "i") -> Call:
    headers = {"task": task, "id": id, "retries": 0}
    return Call(id, task, headers, json.dumps([args, {}, {}]).encode(), queue="q")


def test_a_result_is_stored_before_the_outcome(application: CeleryApplication) -> None:
    assert application.run(call("add", 1, 2, id="sum")).state == "success"
    assert app.AsyncResult("sum").result == 3


@pytest.mark.parametrize(
    ("how", "state", "stored"),
    [
        ("error", "failure", "FAILURE"),
        ("ignore", "ignored", "PENDING"),
        ("reject", "dead", "FAILURE"),
        ("requeue", "requeue", "PENDING"),
        ("memory", "failure", "FAILURE"),
    ],
)
def test_states_of_the_tracer(application: CeleryApplication, how: str, state: str, stored: str) -> None:
    assert application.run(call("end", how, id=how)).state == state
    assert app.AsyncResult(how).state == stored


def test_a_retry_is_sent_by_celery_itself(application: CeleryApplication) -> None:
    outcome = application.run(call("again", id="re"))
    assert (outcome.state, outcome.after_seconds) == ("retry", None)
    assert app.AsyncResult("re").state == "RETRY"


def test_arguments_that_cannot_be_read_fail_the_task(application: CeleryApplication) -> None:
    outcome = application.run(call("add", id="bad")._replace(body=b"{]"))
    assert outcome.state == "dead"
    assert app.AsyncResult("bad").state == "FAILURE"


@pytest.mark.parametrize(
    ("ending", "stored", "state"),
    [
        ("expired", "REVOKED", "ignored"),
        ("revoked", "REVOKED", "ignored"),
        ("terminated", "REVOKED", "ignored"),
        ("timeout", "FAILURE", "requeue"),
        ("lost", "FAILURE", "dead"),
        ("raised", "FAILURE", "failure"),
    ],
)
def test_ends_that_the_task_could_not_tell(
    application: CeleryApplication, ending: Any, stored: str, state: str
) -> None:
    message = call("add", 1, 2, id=f"end-{ending}")
    application.record_end(message, ending, "why")
    assert app.AsyncResult(message.id).state == stored
    assert application.after_end(message, ending, "why").state == state


def test_an_unknown_task_is_stored_as_not_registered(application: CeleryApplication) -> None:
    application.record_end(call("nobody", id="nobody"), "unknown", "")
    assert app.AsyncResult("nobody").state == "FAILURE"
    assert not application.knows("nobody")


def test_what_a_lost_task_had_stored_is_kept(application: CeleryApplication) -> None:
    application.run(call("add", 2, 2, id="kept"))
    application.record_end(call("add", 2, 2, id="kept"), "lost", "died")
    assert app.AsyncResult("kept").result == 4


def test_policies_are_the_tasks_own(application: CeleryApplication) -> None:
    assert not application.policy("add").late
    assert application.policy("end").late
    assert application.policy("end").dead_on_failure


def probe(folder: Path, name: str, text: str) -> tuple[int, dict[str, Any]]:
    (folder / "probed.py").write_text(text)
    command = [sys.executable, "-m", "fleet.worker.probe", name]
    env = {"PYTHONPATH": f"{Path(fleet.__file__).parents[1]}", "PATH": ""}
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return result.returncode, json.loads(result.stdout)


def test_the_probe_tells_a_celery_apps_settings(tmp_path: Path) -> None:
    text = "from celery import Celery\nprint('noise')\napp = Celery('p')\n"
    text += "app.conf.worker_pool = 'threads'\napp.conf.worker_concurrency = 7\n@app.task\ndef t(): ...\n"
    code, answer = probe(tmp_path, "probed:app", text)
    assert code == 0
    assert (answer["kind"], answer["pool"], answer["concurrency"]) == ("celery", "threads", 7)
    assert "probed.t" in answer["tasks"]
    code, answer = probe(tmp_path, "probed:app", "from celery import Celery\napp = Celery('p')\n")
    assert (answer["pool"], answer["concurrency"]) == (None, None)


def test_the_probe_tells_a_registry(tmp_path: Path) -> None:
    text = "from fleet import Tasks\ntasks = Tasks('p')\n@tasks.task\ndef t(): ...\n"
    assert probe(tmp_path, "probed", text) == (
        0,
        {
            "kind": "tasks",
            "pool": None,
            "concurrency": None,
            "queues": ["default"],
            "tasks": ["probed.t"],
            "transportOptions": {},
        },
    )


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("probed:app", "1 / 0", "division by zero"),
        ("probed:nothing", "app = 1", "no attribute 'nothing'"),
        ("probed:app", "app = 1", "is a int, not an app"),
        ("nowhere:app", "", "nowhere"),
        ("probed", "x = 1", "has 0 apps"),
    ],
)
def test_the_probe_says_what_is_wrong(tmp_path: Path, name: str, text: str, error: str) -> None:
    code, answer = probe(tmp_path, name, text)
    assert code == 1
    assert error in answer["error"]
    assert answer["hint"]


@pytest.mark.parametrize("kind", [SoftTimeLimit, HardTimeLimit, SlotLost])
def test_an_error_of_a_pool_says_its_message_beside_celery_too(
    application: CeleryApplication, kind: type[PoolError]
) -> None:
    """billiard's class, which the app adds to the bases of the soft limit, would write the message as a repr."""
    assert str(kind("the task was late")) == "the task was late"
    assert str(kind(str(kind("the task was late")))) == "the task was late"


@pytest.mark.parametrize(("backend", "module"), [("redis://nowhere", "celery.backends.redis"), ("nosuch://", None)])
def test_the_result_backend_is_imported_before_the_first_task(tmp_path: Path, backend: str, module: str | None) -> None:
    """What the first task had to import would be a part of its time limit; what does not exist is no reason to stop."""
    (tmp_path / "mine.py").write_text(f"import celery\napp = celery.Celery('mine', backend={backend!r})\n")
    script = (
        "import sys, mine\nfrom fleet.worker.apps.celery import CeleryApplication\n"
        f"CeleryApplication(mine.app).import_tasks()\nassert {module!r} in (None, *sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_wrap_refuses_what_is_no_app() -> None:
    with pytest.raises(FleetError, match="not an app"):
        wrap(import_object("json:dumps"), "json:dumps")
