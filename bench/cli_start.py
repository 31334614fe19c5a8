"""How long a person waits for a command line: fleet's verbs beside supervisorctl and celery.

Each is a whole command, as somebody types it: wall time from its start to its end, and processor time, because a busy
machine makes the other one longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import figures

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "manifests" / "quickstart.yaml"
GROUPS, SLOTS = 1000, 100

SUPERVISORD = """
[unix_http_server]
file={folder}/s.sock
[supervisord]
logfile={folder}/log
pidfile={folder}/pid
nodaemon=true
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/s.sock
[program:sleepers]
command=sleep 600
numprocs=10
process_name=%(program_name)s_%(process_num)02d
stdout_logfile=NONE
redirect_stderr=true
"""


@contextmanager
def supervisord() -> Iterator[Path]:
    """A supervisord with ten programs; yields its configuration."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        conf = Path(folder) / "s.conf"
        conf.write_text(SUPERVISORD.format(folder=folder))
        daemon = subprocess.Popen(
            [figures.BIN / "supervisord", "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            figures.wait_until((Path(folder) / "s.sock").exists, what="supervisord's socket")
            yield conf
        finally:
            daemon.terminate()
            daemon.wait(30)


def many_groups(folder: Path) -> Path:
    """A manifest of many groups."""
    group = "{{pool: {{type: prefork, concurrency: {slots}}}, replicas: 1, queues: [q{number}]}}"
    groups = "\n".join(f"    g{number}: " + group.format(slots=SLOTS, number=number) for number in range(GROUPS))
    head = "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: many}\nspec:\n  app: shop:app\n"
    path = folder / "many.yaml"
    path.write_text(f"{head}  broker: embedded\n  groups:\n{groups}\n")
    return path


def commands(supervisor_conf: Path) -> dict[str, list[str]]:
    """What is timed, by the name it has in the report."""
    many = many_groups(supervisor_conf.parent)
    bin_ = str(figures.BIN)
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "fleet --help": [f"{bin_}/fleet", "--help"],
        "fleet version": [f"{bin_}/fleet", "version"],
        "fleet validate": [f"{bin_}/fleet", "validate", str(QUICKSTART)],
        "fleet plan": [f"{bin_}/fleet", "plan", str(QUICKSTART)],
        f"fleet plan ({GROUPS} groups, {GROUPS * SLOTS} slots)": [f"{bin_}/fleet", "plan", str(many)],
        "fleet status (nothing applied yet)": [f"{bin_}/fleet", "status", str(QUICKSTART)],
        "fleet explain": [f"{bin_}/fleet", "explain", str(QUICKSTART)],
        "supervisorctl status (10 programs)": [f"{bin_}/supervisorctl", "-c", str(supervisor_conf), "status"],
        "celery --help": [f"{bin_}/celery", "--help"],
    }


def timed(command: list[str], *, home: str) -> tuple[float, float]:
    """Seconds until the command has ended well, and of a processor."""
    env = {**os.environ, "FLEET_HOME": home}
    began, before = time.perf_counter(), figures.children_cpu_seconds()
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds, of_processor = time.perf_counter() - began, figures.children_cpu_seconds() - before
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return seconds, of_processor


def main() -> None:
    """Time every command in turn, again and again, so that a disturbance hits all alike."""
    given = figures.arguments(__doc__, runs=15)
    with supervisord() as conf, tempfile.TemporaryDirectory(prefix="fb-") as home:
        figures.wait_for_quiet()
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands(conf)}
        for run in range(given.runs + 1):
            for name, command in commands(conf).items():
                times = timed(command, home=home)
                if run:  # the first round fills the page cache
                    measured[name].append(times)
    rows = {name: figures.wall_and_cpu(values) for name, values in measured.items()}
    for name, row in rows.items():
        print(f"{name:38} {figures.in_ms(row['wall'])}; of a processor {figures.in_ms(row['cpu'])}")
    print(figures.write("cli_start", {"unit": "seconds", "rows": rows}))


if __name__ == "__main__":
    main()
