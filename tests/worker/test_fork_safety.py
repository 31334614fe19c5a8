"""What stands against a fork of a process that has imported an app, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.workers import PROJECT

FRAME = """
import os, sys
from fleet.worker.image.fork_safety import Watched, problems, read_files
with Watched(("FLEET_REPLICA", "FLEET_INDEX")) as watched:
    import app
print(*watched.problems, *problems(after_import=True), sep="\\n")
print(*("file " + os.path.basename(path) for path in read_files(watched)), sep="\\n")
"""


def importing(folder: Path, code: str) -> list[str]:
    (folder / "app.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", FRAME], cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


def objections(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("file ")]


THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='ticker', daemon=True).start()"
LISTENS = "import socket\nkept = socket.create_server(('127.0.0.1', 0))\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (THREAD, "starts thread 'ticker'"),
        (f"{LISTENS}mine = socket.create_connection(kept.getsockname())", "opens a connection to ('127.0.0.1'"),
        (LISTENS, "opens a socket"),
        ("import os\nkept = os.pipe()", "workers cannot share (pipe)"),
        ("import select\nkept = select.epoll()", "workers cannot share (anon_inode)"),
        ("import multiprocessing\nkept = multiprocessing.Lock()", "makes a lock of multiprocessing that all workers"),
        ("import billiard\nkept = billiard.Lock()", "makes a lock of multiprocessing that all workers"),
        ("from multiprocessing import Value\nkept = Value('i', lock=False)", "makes a value of multiprocessing"),
        ("import mmap\nkept = mmap.mmap(-1, 4096)", "makes shared memory that all workers"),
        ("import os\nos.environ['FLEET_REPLICA'] if 0 else os.environ.get('FLEET_REPLICA')", "app reads FLEET_REPLICA"),
        ("import os\nos.getenv('FLEET_INDEX')", "app reads FLEET_INDEX"),
        ("import os\n'FLEET_INDEX' in os.environ", "app reads FLEET_INDEX"),
    ],
)
def test_an_app_that_must_not_be_forked_is_named_with_the_cause(tmp_path: Path, code: str, said: str) -> None:
    assert any(said in line for line in objections(importing(tmp_path, code)))


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.environ.get('HOME')",
        "import socket\nsocket.create_server(('127.0.0.1', 0)).close()",
        "import threading\none = threading.Thread(target=int)\none.start()\none.join()",
        "kept = open('app.log', 'a')",
        "import multiprocessing\nmultiprocessing.Lock()",
        "import mmap\nkept = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE)",
        "import mmap\ndata = open('data', 'wb+')\ndata.truncate(9)\nkept = mmap.mmap(data.fileno(), 0)",
    ],
)
def test_what_is_over_or_a_file_is_no_objection(tmp_path: Path, code: str) -> None:
    assert objections(importing(tmp_path, code)) == []


def test_files_read_at_import_are_known_and_those_written_are_not(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("a: 1")
    lines = importing(
        tmp_path,
        "from pathlib import Path\nPath('settings.yaml').read_text()\nlog = open('app.log', 'a')\n"
        "import os\ntry: open('.env')\nexcept OSError: pass",
    )
    assert {"file settings.yaml", "file .env", "file app.py"} <= set(lines)
    assert "file app.log" not in lines


GREEN_FRAME = """
from pools.patching import make_event_loop, patch, renew_event_loop
patch("gevent")
from fleet.worker.image.fork_safety import problems
from fleet.worker.image.unpatched import fork, waitpid
own = make_event_loop()
import app
print(*problems(but=own, after_import=True), sep="\\n")
import os, subprocess
worker = fork()
if worker == 0:
    renew_event_loop()
    app.go.set()
    app.waits.join()
    app.ran.remove(os.getpid())
    subprocess.run(["true"], check=True)
    os._exit(len(app.ran))
print("ended with", waitpid(worker, 0)[1], "ran", app.ran)
"""
NOTES = """
import gevent, gevent.event, os, socket, subprocess, time
go, ran = gevent.event.Event(), []
waits = gevent.spawn(lambda: (go.wait(), ran.append(os.getpid())))
"""


def patched(folder: Path, code: str) -> list[str]:
    (folder / "app.py").write_text(NOTES + code)
    environ = {"PYTHONPATH": f"{folder}:{PROJECT}"}
    done = subprocess.run([sys.executable, "-c", GREEN_FRAME], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    "code",
    [
        "",
        "time.sleep(0)",
        "kept = socket.socket()\nkept.close()",
        "import urllib3",
        "subprocess.run(['true'], check=True)",
    ],
)
def test_what_an_app_leaves_to_the_event_loop_of_gevent_runs_in_its_workers_alone(tmp_path: Path, code: str) -> None:
    assert patched(tmp_path, code) == ["ended with 0 ran []"]


def test_threads_of_gevent_are_no_safer_than_others(tmp_path: Path) -> None:
    lines = patched(tmp_path, "kept = gevent.get_hub().threadpool.apply(time.monotonic)")
    assert any("starts 1 thread outside of Python" in line for line in lines), lines
