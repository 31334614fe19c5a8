"""What an image imports for its workers is all that they need: what one imports later it does not share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.core.spec import IMAGE_POOLS, BrokerSpec, PoolSpec, QueueSpec, WorkerSpec, digest
from fleet.replica.launch_document import LaunchDocument
from tests.worker.workers import PROJECT

APPS = {
    "registry": """
import os, signal
from fleet import Tasks
worker = os.getpid()
tasks = Tasks("late", broker=os.environ["BROKER"])
@tasks.task
def last(): os.kill(worker, signal.SIGTERM)
def send(queue): tasks.send("late_app.last", queue=queue)
""",
    "celery": """
import os, signal
from celery import Celery
worker = os.getpid()
tasks = Celery("late", broker=os.environ["BROKER"])
tasks.conf.result_backend = os.environ["RESULTS"]
@tasks.task(name="late_app.last")
def last(): os.kill(worker, signal.SIGTERM)
def send(queue): last.apply_async(queue=queue)
""",
}
FRAME = """
import sys
from pathlib import Path
from fleet.replica import launch_document
from dataclasses import replace
from fleet.core.spec import PoolSpec, patch_of
from fleet.worker.patching import patch_for
patch_for(Path(sys.argv[1]))
from fleet.worker.image.server import import_all, import_pool_of
spec = launch_document.read(Path(sys.argv[1])).spec
import_all(replace(spec, pool=PoolSpec(patch_of(spec) or "threads")))
import_pool_of(Path(sys.argv[1]))
shared = set(sys.modules)
from fleet.worker.__main__ import main
code = main([sys.argv[1]])
print("late", *sorted(set(sys.modules) - shared))
raise SystemExit(code)
"""


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize(
    ("broker", "pool"), [*(("redis_url", pool) for pool in sorted(IMAGE_POOLS)), ("rabbitmq_url", "solo")]
)
def test_a_worker_imports_nothing_after_the_fork(
    tmp_path: Path, request: pytest.FixtureRequest, redis_url: str, broker: str, app: str, pool: str
) -> None:
    """From its start to its end, with a task that ends it and a result that is stored; the image is of another pool."""
    url: str = request.getfixturevalue(broker)
    queue = f"late{os.getpid()}-{time.monotonic_ns()}"
    (tmp_path / "late_app.py").write_text(APPS[app])
    spec = WorkerSpec(
        kind="worker",
        fleet="latefleet",
        group="late",
        app="late_app:tasks",
        broker=BrokerSpec(url=url),
        pool=PoolSpec(pool, 1),
        queues=(QueueSpec(queue),),
    )
    document = LaunchDocument(
        path=tmp_path / "late.0.json",
        fleet="latefleet",
        replica="late.0",
        digest=digest(spec),
        spec=spec,
        secrets={},
        record=tmp_path / "late.0.rec",
        log=tmp_path / "late.0.log",
    )
    document.path.write_bytes(document.to_bytes())
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}", "BROKER": url, "RESULTS": redis_url}
    environ |= {"FLEET_BROKER_URL": url, "FLEET_MINGLE_SECONDS": "0"}
    send = f"import late_app; late_app.send({queue!r})"
    for words in (["-c", send], ["-c", FRAME, str(document.path)]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "Task late_app.last" in done.stderr
    assert done.stdout.split() == ["late"]
