"""A worker started as a replica is, by its launcher: fleet's own or Celery's, with the same app."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery

from fleet.core.spec import TaskPolicy, digest
from fleet.replica import record
from fleet.replica.launch_document import LaunchDocument
from tests.conftest import eventually
from tests.worker.workers import PROJECT, RunningWorker

APP = """
import os, time
from celery import Celery

app = Celery("contract", broker=os.environ.get("FLEET_BROKER_URL", "memory://"))
app.conf.broker_connection_retry_on_startup = True
app.conf.task_ignore_result = True
app.conf.task_acks_late = True


def write(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (str(text) + "\\n").encode())
    os.close(descriptor)


@app.task
def note(path, number):
    write(path, number)


@app.task
def wait_for(path, number, gate):
    write(path + ".started", number)
    while not os.path.exists(gate):
        time.sleep(0.02)
    write(path, number)


@app.task
def broken():
    raise ValueError("as asked")


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def again(self):
    if not self.request.retries:
        raise self.retry()
"""


ANOTHER_CELERY = os.environ.get("ANOTHER_CELERY", "")
"""A folder with a version of Celery that is not the installed one (``pip install --target``)."""


class LaunchedWorker(RunningWorker):
    """A replica that takes from a queue of its own. ``kind``: ``worker`` or ``celery``."""

    def __init__(
        self, folder: Path, url: str, *, kind: str, pool: str, slots: int, prefetch: int | None = None
    ) -> None:
        (folder / "contract.py").write_text(APP)
        self.queue = f"c{uuid.uuid4().hex[:8]}"
        self.out = folder / "out"
        self.gate = folder / "gate"
        super().__init__(
            folder,
            url,
            kind=kind,
            pool=pool,
            slots=slots,
            queues=[self.queue],
            app="contract:app",
            task=TaskPolicy(prefetch=prefetch),
            python=sys.executable,
            workdir=str(folder),
            env=(("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), ANOTHER_CELERY, str(PROJECT))))),),
        )
        self.producer = Celery("contract", broker=url, set_as_current=False)
        self.producer.conf.task_default_queue = self.queue

    def start(self, *, ready: bool = True, environ: Mapping[str, str] | None = None) -> LaunchedWorker:
        path = self.folder / "shop.0.json"
        document = LaunchDocument(
            path=path,
            fleet=self.fleet,
            replica=self.replica,
            digest=digest(self.spec),
            spec=self.spec,
            secrets={},
            record=self.record_path,
            log=self.log_path,
            starts=self.folder / "shop.0.starts",
        )
        path.write_bytes(document.to_bytes())
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fleet.launch", str(path), document.digest],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **(environ or {})},
        )
        if ready:
            self.wait_state("ready")
        return self

    def wait_own_record(self) -> None:
        """Until it keeps its record itself."""
        eventually(lambda: (seen := self.view()) is not None and not seen.foreign)

    def wait_state(self, *states: str, **options: Any) -> record.RecordView:
        """As the record says, once it is the worker's own."""
        eventually(lambda: self.process is None or self.process.poll() is not None or self._is_own())
        return super().wait_state(*states, **options)

    def _is_own(self) -> bool:
        seen = self.view()
        return seen is not None and not seen.foreign

    def send(self, name: str, *arguments: object, **options: Any) -> str:
        """Enqueue a task of the app; its id."""
        return str(self.producer.send_task(f"contract.{name}", args=arguments, queue=self.queue, **options).id)

    def wait(self, *arguments: Any, **options: Any) -> int:
        return super().wait(*arguments, **options)

    def blocked(self, number: int) -> str:
        """Send a task that runs until the gate is open."""
        return self.send("wait_for", str(self.out), number, str(self.gate))

    def open_gate(self) -> None:
        self.gate.write_text("")

    def done(self) -> list[int]:
        """Numbers of the tasks that came to their end, in order."""
        return [int(line) for line in self.out.read_text().split()] if self.out.exists() else []

    def clean(self) -> None:
        self.producer.close()
        super().clean()
