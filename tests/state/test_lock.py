"""One command changes a fleet at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.errors import LockHeld
from fleet.replica.process_identity import is_stopped
from fleet.state.lock import Lock, holder
from fleet.state.paths import Places
from tests.conftest import eventually

HOLDER = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fleet.state.lock import Lock
from fleet.state.paths import Places
with Lock(Places.of(Path(sys.argv[1]), "shop"), command="fleet apply prod.yaml"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of(tmp_path, "shop")


def other_holder(places: Places) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(places.root.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_command_is_told_who_holds_the_lock(places: Places) -> None:
    with other_holder(places) as other:
        with pytest.raises(LockHeld) as caught, Lock(places):
            pass
        assert f"pid {other.pid}" in caught.value.message
        assert "fleet apply prod.yaml" in caught.value.message
        assert f"kill {other.pid}" in caught.value.hint
        assert caught.value.exit_code == 8
        seen = holder(places)
        assert seen is not None
        assert seen.pid == other.pid
        other.communicate()


def test_of_a_holder_that_is_stopped_the_hint_says_what_helps(places: Places) -> None:
    """It notices no TERM."""
    with other_holder(places) as other:
        other.send_signal(signal.SIGSTOP)
        eventually(lambda: is_stopped(other.pid))
        with pytest.raises(LockHeld) as caught, Lock(places, command="fleet apply"):
            raise AssertionError("two at once")
        assert f"`kill -CONT {other.pid}`" in caught.value.hint
        assert f"`kill -9 {other.pid}`" in caught.value.hint
        other.send_signal(signal.SIGCONT)
        other.communicate("")


def test_a_killed_holder_holds_nothing(places: Places) -> None:
    with other_holder(places) as other:
        other.send_signal(signal.SIGKILL)
        other.communicate()

    with Lock(places, command="fleet down"):
        assert places.lock.read_text() != ""
    assert holder(places) is None


def test_a_patient_command_gets_its_turn(places: Places) -> None:
    with other_holder(places) as other:
        assert other.stdin is not None
        other.stdin.close()
        with Lock(places, wait_seconds=120.0):
            pass


def test_the_lock_is_released_when_the_work_fails(places: Places) -> None:
    with pytest.raises(ZeroDivisionError), Lock(places):
        _ = 1 / 0

    with Lock(places):
        assert places.lock.stat().st_mode & 0o777 == 0o600
        assert places.run.stat().st_mode & 0o777 == 0o700


def test_a_holder_that_wrote_nothing_readable_is_still_a_holder(places: Places) -> None:
    with other_holder(places) as other:
        places.lock.write_bytes(b"\xff{")
        with pytest.raises(LockHeld, match="another command"), Lock(places):
            pass
        other.communicate()


def test_children_do_not_inherit_the_lock(places: Places) -> None:
    with Lock(places):
        child = subprocess.Popen(["sleep", "300"], close_fds=False)
    try:
        with Lock(places):
            assert os.path.exists(f"/proc/{child.pid}")
    finally:
        child.kill()
        child.wait()


def test_a_lock_alone_takes_the_folder_of_its_fleet_with_it(tmp_path: Path) -> None:
    places = Places.of(tmp_path / "home", "shop")
    with Lock(places):
        assert places.lock.exists()
    assert list(tmp_path.iterdir()) == []
    places.root.parent.mkdir()
    with Lock(places):
        assert places.lock.exists()
    assert list(tmp_path.iterdir()) == [places.root.parent], "it was there before"


def test_a_lock_with_something_beside_it_stays(tmp_path: Path) -> None:
    places = Places.of(tmp_path / "home", "shop")
    with Lock(places):
        places.state.mkdir()
    assert places.lock.exists()
    with Lock(places):
        assert holder(places) is not None
    assert places.lock.exists()


def test_a_lock_whose_file_was_removed_while_somebody_waited_for_it_keeps_others_out(tmp_path: Path) -> None:
    places = Places.of(tmp_path / "home", "shop")
    with ThreadPoolExecutor(8) as pool:
        inside = 0

        def enter(_: int) -> int:
            nonlocal inside
            with Lock(places, wait_seconds=60.0):
                inside += 1
                now = inside
                time.sleep(0.001)
                inside -= 1
            return now

        assert set(pool.map(enter, range(60))) == {1}
    assert not places.root.exists()
