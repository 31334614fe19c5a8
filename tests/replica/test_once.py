"""What runs to its end: the launcher runs it once, notes how it ended, and does not run it again."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.core.spec import PARKED_EXIT, RestartPolicy, WorkerSpec
from fleet.state.paths import Places
from tests.backends.worlds import spec_of
from tests.conftest import PATIENCE, eventually
from tests.replica.test_launch import Launchpad


@pytest.fixture
def pad(short_tmp: Path) -> Launchpad:
    return Launchpad(Places.of(short_tmp, "shop"))


def once(line: str, policy: str = "never") -> WorkerSpec:
    restart = RestartPolicy(backoff_initial_seconds=0.01, policy=policy)  # type: ignore[arg-type]
    return spec_of(("/bin/sh", "-c", line), job=True, restart=restart)


def told(pad: Launchpad) -> tuple[str, str]:
    record = pad.record
    return record.state, record.note.split(" after ")[0]


@pytest.mark.parametrize(
    ("policy", "code", "exits", "state"),
    [
        ("never", 0, PARKED_EXIT, "stopped"),
        ("never", 3, PARKED_EXIT, "failed"),
        ("never", PARKED_EXIT, PARKED_EXIT, "failed"),
        ("onFailure", 0, PARKED_EXIT, "stopped"),
        ("onFailure", 3, 3, "ready"),
        ("onFailure", PARKED_EXIT, 1, "ready"),
    ],
)
def test_how_an_end_is_told(pad: Launchpad, policy: str, code: int, exits: int, state: str) -> None:
    assert pad.run(once(f"echo out; exit {code}", policy)) == exits
    assert pad.record.state == state
    assert "out\n" in pad.log
    if state != "ready":
        assert told(pad) == (state, f"exit code {code}")


def test_what_has_completed_is_not_run_again_until_it_is_another(pad: Launchpad, tmp_path: Path) -> None:
    spec = once(f"echo x >> {tmp_path}/ran")
    for _ in range(3):
        assert pad.run(spec) == PARKED_EXIT
    assert told(pad) == ("stopped", "exit code 0")
    assert (tmp_path / "ran").read_text() == "x\n"
    assert pad.run(replace(spec, followers="another")) == PARKED_EXIT
    assert (tmp_path / "ran").read_text() == "x\nx\n"


def test_a_job_that_is_killed_is_not_run_again(pad: Launchpad, tmp_path: Path) -> None:
    spec = once(f"echo x >> {tmp_path}/ran; exec sleep 1000")
    with pad.popen(pad.write(spec)) as process:
        eventually(lambda: (tmp_path / "ran").exists())
        process.kill()
        process.wait(PATIENCE)
    assert pad.run(spec) == PARKED_EXIT
    assert pad.record.state == "failed"
    assert "killed before its end" in pad.record.note
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_job_that_is_asked_to_end_has_not_completed(pad: Launchpad, tmp_path: Path) -> None:
    spec = once(f"trap 'exit 0' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done")
    with pad.popen(pad.write(spec)) as process:
        eventually(lambda: (tmp_path / "begun").exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert pad.record.state == "ready"
