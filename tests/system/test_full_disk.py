"""A fleet whose disk is full, and one whose files were damaged while it ran."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.system.worlds import World

GROUPS = """\
    thumbs: {pool: solo, replicas: 2, queues: [full-disk]}
    other: {pool: solo, replicas: 1, queues: [full-2]}
"""


def mounted(folder: Path) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small(world: World) -> Iterator[World]:
    """A fleet whose home is a disk of 4 MB."""
    if not mounted(world.home):
        pytest.skip("this user may not mount a small file system")
    try:
        yield world
    finally:
        (world.home / "filling").unlink(missing_ok=True)
        world.close()
        subprocess.run(["umount", "--lazy", str(world.home)], check=True)


def fill(world: World) -> None:
    with (world.home / "filling").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def test_on_a_full_disk_what_stops_things_works_and_the_rest_says_why(small: World, redis_url: str) -> None:
    small.write(GROUPS, broker=redis_url)
    small.apply()
    fill(small)

    refused = small.fleet("scale", "thumbs=3", "--live", str(small.manifest), code=1).stderr
    assert "cannot write" in refused
    assert "No space left on device" in refused
    assert "free some space" in refused
    assert "Traceback" not in refused
    assert len(small.pids()) == 3, "nothing was changed"

    fill(small)
    said = small.fleet("drain", "thumbs", str(small.manifest)).stderr
    assert "No space left on device; the next apply undoes this" in said
    eventually(lambda: {row["state"] for row in small.workers().values()} >= {"draining"})

    fill(small)
    small.fleet("pause", "other", str(small.manifest))
    assert set(small.pids()) == {"thumbs.0", "thumbs.1"}

    fill(small)
    said = small.fleet("down", str(small.manifest), "--yes").stderr
    assert "No space left on device" in said
    assert small.processes() == []


def test_the_files_of_a_running_fleet_are_written_again_before_a_change(world: World, redis_url: str) -> None:
    world.write(GROUPS, broker=redis_url)
    world.apply()
    run = world.home / "world" / "run"
    for text in ("", "[supervisord\nnonsense", "[supervisord]\n"):
        (run / "supervisord.conf").write_text(text)
        assert "is not as fleet wrote it" in world.fleet("doctor", str(world.manifest), code=1).stdout
        world.fleet("scale", f"thumbs={3 if len(world.pids()) == 3 else 2}", "--live", str(world.manifest))
        assert "supervisorctl" not in (run / "supervisord.conf").read_text()
        assert "files=conf.d/*.conf" in (run / "supervisord.conf").read_text()
    (run / "supervisord.conf").unlink()
    world.fleet("doctor", str(world.manifest), "--fix")
    (run / "supervisord.conf").write_text("")
    world.fleet("down", str(world.manifest), "--yes")

    assert world.processes() == []


@pytest.mark.parametrize("kind", ["specs/*.json", "records/*.rec", "conf.d/*.conf"])
@pytest.mark.parametrize("damage", ["garbage", "missing"])
def test_damaged_files_of_replicas_stop_no_verb(world: World, redis_url: str, kind: str, damage: str) -> None:
    world.write(GROUPS, broker=redis_url)
    world.apply()
    before = world.pids()
    for path in (world.home / "world" / "run").glob(kind):
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"\xff\x00{" * 50)
    for verb in ("status", "plan", "health", "doctor", "restart thumbs", "apply", "status", "down --yes"):
        result = world.fleet(*verb.split(), str(world.manifest), code=None)
        assert "Traceback" not in result.stderr, f"{verb}: {result.stderr}"
        if verb == "doctor" and kind.startswith("records"):
            eventually(lambda: all(row["state"] == "ready" for row in world.workers().values()))
            assert world.pids() == before, "the workers themselves wrote their records again"
        if verb == "apply":
            assert result.returncode == 0, result.stderr

    assert world.processes() == []
