"""A Celery app whose fleet workers are steered and watched from outside, with Celery's own tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import PATIENCE
from tests.system.test_worker_celery import APP, CeleryShop
from tests.worker.workers import PROJECT, RunningWorker

MORE = """
from celery.worker.control import control_command, inspect_command

@app.task(rate_limit="4/s")
def paced(number):
    write(f"paced {time.time()}")
    return number


@app.task
def spins(seconds):
    write("spins")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@inspect_command()
def where_are_you(state):
    return {"node": state.hostname, "pid": os.getpid(), "app": state.app.main}


@control_command(args=[("a", int), ("b", int)])
def add_up(state, a, b):
    return {"ok": a + b}


app.conf.result_backend_transport_options = {"password": "in-options"}
app.conf.database_password = "in-settings"
"""

NODE = f"shopfleet.shop.0@{os.uname().nodename}"


class RemoteShop(CeleryShop):
    """With Celery's command line, and replies of one node."""

    def __init__(self, folder: Path, url: str, results: str) -> None:
        super().__init__(folder, url, results)
        (folder / "capp.py").write_text(APP + MORE)

    def celery(self, *arguments: str, code: int = 0) -> str:
        """Run ``celery`` as a person would; what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-b", self.url, "-A", "capp", *arguments],
            cwd=self.folder,
            env=self.tool_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inspect(self, *arguments: str, node: str = NODE) -> Any:
        """``celery inspect … --json``; the reply of one node."""
        return json.loads(self.celery("inspect", "-t", "120", "-d", node, "--json", *arguments))[node]

    def control(self, *arguments: str, node: str = NODE) -> Any:
        """``celery control … --json``; the reply of one node."""
        replies = json.loads(self.celery("control", "-t", "120", "-d", node, "--json", *arguments))
        return _reply_of(replies, node)

    def ask(self, command: str, node: str = NODE, **arguments: Any) -> Any:
        """One command over this app, as ``celery control`` sends it; the reply."""
        replies = self.app.control.broadcast(command, arguments, destination=[node], reply=True, timeout=PATIENCE)
        return _reply_of(replies, node)

    def tool_environ(self) -> dict[str, str]:
        return {**os.environ, **self.environ, "PYTHONPATH": f"{self.folder}:{PROJECT}", "NO_COLOR": "1"}


def _reply_of(replies: Any, node: str) -> Any:
    for reply in replies if isinstance(replies, list) else [replies]:
        if node in reply:
            return reply[node]
    raise AssertionError(f"no reply of {node} in {replies!r}")


def ids(jobs: list[dict[str, Any]]) -> list[str]:
    """The task ids in an answer."""
    return [job["id"] for job in jobs]


__all__ = ["NODE", "RemoteShop", "RunningWorker", "ids"]
