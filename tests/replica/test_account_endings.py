"""How the processes of another account ended: the record is the account's own, counters and audit are fleet's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fleet.core.spec import PARKED_EXIT, LimitsSpec, RestartPolicy, WorkerSpec
from fleet.replica.counters import counters_file, read_counters
from fleet.replica.ending import Ending, ending_file, write_ending
from fleet.state.audit import Audit
from fleet.state.paths import Places
from tests.accounts import as_nobody, needs_second_account, open_to_all
from tests.replica.test_account import OWNER, owned
from tests.replica.test_launch import Launchpad, crash_events

pytestmark = needs_second_account

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def pad(short_tmp: Path) -> Launchpad:
    return Launchpad(Places.of(open_to_all(short_tmp) / "home", "shop"))


@pytest.fixture
def python() -> str:
    """An interpreter of this version that every account can run."""
    check = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}"
    for found in (sys.executable, "/usr/bin/python3"):
        can_run = as_nobody(lambda found=found: os.access(found, os.X_OK))
        if can_run and subprocess.run([found, "-c", check], check=False).returncode == 0:
            return found
    pytest.skip("the second account can run no Python of this version")


@pytest.fixture(scope="module")
def code() -> Iterator[str]:
    """fleet's code where every account can read it: the checkout may lie in a home that is closed to others."""
    if as_nobody(lambda: os.access(REPOSITORY / "fleet" / "launch.py", os.R_OK)):
        yield str(REPOSITORY)
        return
    with TemporaryDirectory(prefix="fl-", dir="/tmp") as folder:
        for package in ("fleet", "pools"):
            shutil.copytree(REPOSITORY / package, Path(folder) / package)
        subprocess.run(["chmod", "-R", "go+rX", folder], check=True)
        yield folder


@pytest.fixture
def shared(short_tmp: Path) -> Path:
    """A folder that every account can write into."""
    folder = short_tmp / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def run(pad: Launchpad, spec: WorkerSpec, python: str, *, code: str) -> int:
    """Launch a job once with this interpreter; its keeper in front of the program needs one, too."""
    replica = pad.write(spec)
    argv = [python, "-P", "-m", "fleet.launch", str(pad.places.spec_file(replica.name)), replica.digest]
    return subprocess.run(argv, cwd="/", env={**os.environ, "PYTHONPATH": code}, check=False).returncode


def job(line: str, *, code: str) -> WorkerSpec:
    never = RestartPolicy(policy="never")
    return owned(("/bin/sh", "-c", line), job=True, restart=never, env=(("PYTHONPATH", code),))


def owner_of_record(pad: Launchpad) -> int:
    return pad.places.record_file("thumbs.0").stat().st_uid


def test_a_job_notes_its_end_and_is_not_run_again(pad: Launchpad, python: str, code: str, shared: Path) -> None:
    spec = replace(job(f"id -u >> {shared}/ran", code=code), log_link=str(shared / "links" / "thumbs.log"))
    for _ in range(3):
        assert run(pad, spec, python, code=code) == PARKED_EXIT, pad.log
    assert (shared / "ran").read_text() == f"{OWNER.uid}\n"
    assert (pad.record.state, owner_of_record(pad)) == ("stopped", OWNER.uid)
    assert (shared / "links" / "thumbs.log").readlink() == pad.places.log_file("thumbs.0")


def test_a_job_that_is_killed_is_not_run_again(pad: Launchpad, python: str, code: str, shared: Path) -> None:
    spec = job(f"echo x >> {shared}/ran; kill -KILL $PPID", code=code)
    assert run(pad, spec, python, code=code) == -signal.SIGKILL
    assert run(pad, spec, python, code=code) == PARKED_EXIT, pad.log
    assert "killed before its end" in pad.record.note
    assert (pad.record.state, owner_of_record(pad)) == ("failed", OWNER.uid)
    assert (shared / "ran").read_text() == "x\n"


def test_limits_that_cannot_be_set_are_told_in_the_accounts_own_record(pad: Launchpad) -> None:
    assert pad.run(owned(("/bin/true",), limits=LimitsSpec(open_files=1 << 40))) == 1
    assert pad.record.cannot_start
    assert "limits.openFiles" in pad.record.note
    assert owner_of_record(pad) == OWNER.uid


def test_a_crash_is_counted_and_told(pad: Launchpad) -> None:
    spec = owned(("/bin/true",))
    pad.run(spec)
    path = ending_file(pad.places.records, "thumbs.0")
    write_ending(path, Ending(pad.record.pid, int(signal.SIGKILL), asked=False, at=time.time()))
    pad.run(spec)
    assert [entry["signal"] for entry in crash_events(pad)] == ["SIGKILL"]
    counters = read_counters(counters_file(pad.places.counters, "thumbs.0"))
    assert (counters.starts, counters.crashes) == (2, 1)


def test_a_park_is_told(pad: Launchpad) -> None:
    spec = owned(("/bin/false",), restart=RestartPolicy(max_crashes=1, backoff_initial_seconds=0.01))
    assert [pad.run(spec) for _ in range(3)][-1] == PARKED_EXIT
    (entry,) = [entry for entry in Audit(pad.places.audit).read() if entry["event"] == "worker.parked"][-1:]
    assert entry["reason"] == pad.record.note
