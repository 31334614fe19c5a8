"""Limits by a control group where one can be made, and of each process where not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.core.spec import LimitsSpec
from fleet.replica.resource_limits import limit

BOTH = LimitsSpec(memory_bytes=256 << 20, cpus=1.5)


class Tree:
    """Control groups as the kernel shows them, in plain files."""

    def __init__(self, root: Path, own: str, *, gives: dict[str, str]) -> None:
        self.root, self.own = root / "cgroup", root / "own"
        for place in ("", *gives):
            (self.root / place).mkdir(parents=True, exist_ok=True)
            (self.root / place / "cgroup.subtree_control").write_text(gives.get(place, ""))
        (self.root / "cgroup.controllers").write_text("cpu memory")
        self.own.write_text(f"0::{own}\n")
        self.said: list[str] = []

    def limit(self, limits: LimitsSpec, *, name: str = "shop-web.0") -> None:
        limit(limits, nice=0, name=name, say=self.said.append, cgroup=self.root, own=self.own)


def test_the_innermost_group_that_gives_all_of_it_is_used(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/system.slice/shop.service", gives={"system.slice": "cpu memory", "": "cpu memory"})
    tree.limit(BOTH)
    place = tree.root / "system.slice/fleet-shop-web.0"
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        "memory.max": str(256 << 20),
        "cpu.max": "150000 100000",
        "cgroup.procs": str(os.getpid()),
    }
    assert tree.said == [f"limits memory 256Mi, cpus 1.5: control group {place}"]


def test_a_replica_that_starts_again_in_its_own_group_makes_none_inside_it(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/a/fleet-shop-web.0", gives={"a": "cpu memory", "a/fleet-shop-web.0": "cpu memory"})
    tree.limit(BOTH)
    assert (tree.root / "a/fleet-shop-web.0/cgroup.procs").exists()
    assert not (tree.root / "a/fleet-shop-web.0/fleet-shop-web.0").exists()


def test_groups_of_replicas_that_are_gone_are_removed(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/a", gives={"a": "cpu memory"})
    (tree.root / "a/fleet-shop-old.7").mkdir()
    (tree.root / "a/other").mkdir()
    tree.limit(BOTH)
    assert sorted(path.name for path in (tree.root / "a").iterdir() if path.is_dir()) == ["fleet-shop-web.0", "other"]


CHILD = """
import json, os, resource, sys
from pathlib import Path
from fleet.core.spec import LimitsSpec
from fleet.replica.resource_limits import CannotLimit, limit

said = []
values, nice = json.loads(sys.argv[1]), int(sys.argv[2])
try:
    limit(LimitsSpec(**values), nice=nice, name="x", say=said.append, cgroup=Path(sys.argv[3]), own=Path("/no/file"))
except CannotLimit as error:
    said.append(str(error))
print(json.dumps({
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
    "cpus": len(os.sched_getaffinity(0)),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "said": said,
}))
"""


def in_child(folder: Path, values: dict[str, object], nice: int = 0) -> dict[str, object]:
    command = [sys.executable, "-c", CHILD, json.dumps(values), str(nice), str(folder)]
    found: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def test_without_a_control_group_each_process_is_limited_and_that_is_said(tmp_path: Path) -> None:
    found = in_child(tmp_path, {"open_files": 64, "memory_bytes": 4 << 30, "cpus": 0.5}, nice=19)
    assert (found["files"], found["memory"], found["cpus"]) == ([64, 64], 4 << 30, 1)
    assert found["nice"] == 19
    (said,) = found["said"]  # type: ignore[misc]
    assert said.startswith("limits memory 4Gi, cpus 0.5: of each process")


def test_a_limit_that_is_out_of_reach_is_told_by_its_field(tmp_path: Path) -> None:
    (said,) = in_child(tmp_path, {"open_files": 1 << 31})["said"]  # type: ignore[misc]
    assert said.startswith("limits.openFiles 2147483648")


@pytest.mark.parametrize("gives", ["", "cpu", "memory"])
def test_a_group_that_gives_only_a_part_is_not_used(tmp_path: Path, gives: str) -> None:
    tree = Tree(tmp_path, "/a", gives={"a": gives})
    found = in_child(tree.root, {"memory_bytes": 4 << 30, "cpus": 1})
    assert not list(tree.root.glob("**/fleet-*"))
    assert found["memory"] == 4 << 30
