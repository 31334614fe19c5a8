"""A small world for whole-fleet tests: tasks, a manifest, a FLEET_HOME, and the real ``fleet`` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import eventually

TASKS = '''
import os, signal, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from fleet import Tasks

tasks = Tasks("world")


def note(path, text):
    """One line, one write: lines of many processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, (text + "\\n").encode())
    finally:
        os.close(descriptor)


def double(number):
    return number * 2


@tasks.task
def work(path, number, seconds):
    note(path + ".started", f"{number} {os.getpid()}")
    time.sleep(seconds)
    note(path, f"{number}")


@tasks.task
def wait_for(path, number, flag):
    note(path + ".started", f"{number} {os.getpid()}")
    while not os.path.exists(flag):
        time.sleep(0.05)
    note(path, f"{number}")


@tasks.task
def fan_out(path, number):
    with ProcessPoolExecutor(max_workers=4) as pool:
        assert sum(pool.map(double, range(10))) == 90
    note(path, f"{number}")
'''


COMMAND_SECONDS = 600.0
"""A command that takes longer hangs."""


@dataclass
class World:
    """One fleet in a folder of its own. ``manifest`` is the path people would edit."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = (sys.executable, "-m", "fleet")

    @property
    def manifest(self) -> Path:
        return self.root / "fleet.yaml"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def done_file(self) -> Path:
        return self.root / "done"

    def write(
        self, groups: str, *, broker: str = "embedded", name: str = "world", more: str = "", heal: str = "off"
    ) -> None:
        """Write the manifest. ``groups`` is YAML, indented by four. A fleet that heals is for the tests of healing."""
        broker_line = "embedded" if broker == "embedded" else f'{{url: "{broker}"}}'
        self.manifest.write_text(
            f"""apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: {name}}}
spec:
  app: world_tasks:tasks
  release: {{workdir: {self.root}}}
  broker: {broker_line}
  heal: {{mode: "{heal}"}}
  defaults: {{task: {{acks: late}}, drain: {{timeout: 20s}}, health: {{readyTimeout: 10m}}}}
{more}  groups:
{groups}"""
        )

    def command(self, *arguments: str) -> list[str]:
        return [*self.prefix, *arguments]

    def env(self) -> dict[str, str]:
        base = {key: value for key, value in os.environ.items() if not key.startswith("FLEET_")}
        return {**base, "FLEET_HOME": str(self.home), "NO_COLOR": "1", **self.environ}

    def fleet(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run ``fleet`` as a person would, and check its exit code."""
        result = subprocess.run(
            self.command(*arguments),
            env=self.env(),
            cwd=self.root,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        if code is not None and result.returncode != code:
            raise AssertionError(
                f"fleet {' '.join(arguments)} exited {result.returncode}, not {code}\n"
                f"--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}\n--- logs\n{self.logs()}"
            )
        return result

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.env(),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def apply(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.fleet("apply", str(self.manifest), *more)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.fleet("status", str(self.manifest), "-o", "json").stdout)
        return document

    def workers(self) -> dict[str, dict[str, Any]]:
        """Replica name -> its row of ``status``, system programs left out."""
        groups = self.status()["groups"]
        return {
            worker["name"]: worker
            for name, group in groups.items()
            if not name.startswith("fleet-")
            for worker in group["workers"]
        }

    def pids(self) -> dict[str, int]:
        return {name: row["pid"] for name, row in self.workers().items() if row["pid"]}

    def send(self, task: str, queue: str, *argument_lists: list[Any]) -> None:
        """Enqueue with the fleet's own publisher, in one process."""
        code = (
            "import json, sys, os\n"
            "os.environ['FLEET_BROKER_URL'] = sys.argv[1]\n"
            "from world_tasks import tasks\n"
            "for arguments in json.load(sys.stdin):\n"
            "    tasks.send(sys.argv[2], arguments, queue=sys.argv[3])\n"
        )
        subprocess.run(
            [sys.executable, "-c", code, self.broker_url(), f"world_tasks.{task}", queue],
            input=json.dumps(argument_lists),
            text=True,
            cwd=self.root,
            env=self.env(),
            check=True,
            timeout=COMMAND_SECONDS,
        )

    def broker_url(self) -> str:
        text = self.manifest.read_text()
        if "broker: embedded" in text:
            return f"redis+socket://{self.home}/world/run/broker.sock?virtual_host=0"
        return text.split('{url: "', 1)[1].split('"', 1)[0]

    def done(self) -> Counter[int]:
        """How often each number was finished."""
        if not self.done_file.exists():
            return Counter()
        return Counter(int(line) for line in self.done_file.read_text().split())

    def started(self) -> Counter[int]:
        path = Path(f"{self.done_file}.started")
        return Counter(int(line.split()[0]) for line in path.read_text().splitlines()) if path.exists() else Counter()

    def logs(self) -> str:
        folder = self.home / "world" / "log"
        return "\n".join(f"== {p.name}\n{p.read_text()[-1500:]}" for p in sorted(folder.glob("*.log")))

    def processes(self) -> list[psutil.Process]:
        """Every live process that carries this world's mark in its environment or its command line."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = str(self.home) in " ".join(process.cmdline()) or any(
                    str(self.home) in value for value in process.environ().values()
                )
                if marked and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def supervisord_pid(self) -> int:
        return int((self.home / "world" / "run" / "supervisord.pid").read_text())

    def close(self) -> None:
        """Take the fleet down; whatever still lives is killed, by pid."""
        if self.manifest.exists():
            self.fleet("down", str(self.manifest), "--yes", code=None)
        for process in self.processes():
            process.send_signal(signal.SIGKILL)
        eventually(lambda: not self.processes())


def make(root: Path) -> World:
    """A world with its tasks module in place."""
    (root / "world_tasks.py").write_text(TASKS)
    return World(root, environ={"PYTHONPATH": str(root)})
