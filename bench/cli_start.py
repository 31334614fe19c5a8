"""How long a person waits for a command line: fleet's verbs beside supervisorctl and celery."""

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


def commands(supervisor_conf: Path) -> dict[str, list[str]]:
    """What is timed, by the name it has in the report."""
    bin_ = str(figures.BIN)
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "fleet --help": [f"{bin_}/fleet", "--help"],
        "fleet version": [f"{bin_}/fleet", "version"],
        "fleet validate": [f"{bin_}/fleet", "validate", str(QUICKSTART)],
        "fleet plan": [f"{bin_}/fleet", "plan", str(QUICKSTART)],
        "supervisorctl status (10 programs)": [f"{bin_}/supervisorctl", "-c", str(supervisor_conf), "status"],
        "celery --help": [f"{bin_}/celery", "--help"],
    }


def timed(command: list[str], *, home: str) -> float:
    """Seconds until the command has ended well."""
    env = {**os.environ, "FLEET_HOME": home}
    began = time.perf_counter()
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return seconds


def main() -> None:
    """Time every command in turn, again and again, so that a disturbance hits all alike."""
    given = figures.arguments(__doc__, runs=15)
    with supervisord() as conf, tempfile.TemporaryDirectory(prefix="fb-") as home:
        measured: dict[str, list[float]] = {name: [] for name in commands(conf)}
        for run in range(given.runs + 1):
            for name, command in commands(conf).items():
                seconds = timed(command, home=home)
                if run:  # the first round fills the page cache
                    measured[name].append(seconds)
    rows = {name: figures.spread(values) for name, values in measured.items()}
    for name, row in rows.items():
        print(f"{name:38} {row['median'] * 1000:6.0f} ms  [{row['min'] * 1000:.0f} to {row['max'] * 1000:.0f}]")
    print(figures.write("cli_start", {"unit": "seconds", "rows": rows}))


if __name__ == "__main__":
    main()
