"""Files that others wrote, made to break their reader: every verb that reads them refuses in words."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.file_access import NAMED_BYTES
from fleet.replica import record as records
from tests.cli.conftest import Desk

MEMORY_BYTES = 600 << 20


def merge_bomb() -> str:
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    return "\n".join([*lines, "metadata: {name: shop}"])


def alias_bomb() -> str:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(lines)


BOMBS: dict[str, Callable[[], str]] = {
    "brackets": lambda: "[" * 500_000,
    "braces": lambda: "{a: " * 120_000,
    "merge": merge_bomb,
    "alias": alias_bomb,
    "long": lambda: "a: " + "x" * (NAMED_BYTES + 10),
}
VERBS = ("status", "validate", "plan", "history", "events", "logs", "down --yes", "pause", "scale thumbs=2", "doctor")


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_manifest_made_to_break_its_reader_is_refused_by_every_verb(tmp_path: Path, bomb: str) -> None:
    """In one process of its own with little memory: a crash of the interpreter would end this one."""
    manifest = tmp_path / "fleet.yaml"
    manifest.write_text(BOMBS[bomb]())
    code = f"""
import resource, sys
from fleet.cli import main
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
for line in {VERBS!r}:
    verb, *rest = line.split()
    print("exit", main([verb, {str(manifest)!r}, *rest]))
"""
    env = {**os.environ, "FLEET_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    assert "MemoryError" not in done.stderr
    ends = [line for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert len(ends) == len(VERBS)
    assert set(ends) <= {"exit 3", "exit 64"}, ends


# --- kept plans


@pytest.fixture
def plan(desk: Desk) -> Path:
    desk.fleet("plan", "--out", "plan.json")
    return desk.folder / "plan.json"


def removed(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for part in path[:-1]:
            document = document[part]
        del document[path[-1]]

    return change


def changed(value: object, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for part in path[:-1]:
            document = document.setdefault(part, {})
        document[path[-1]] = value

    return change


DEEP: Any = {}
for _ in range(500):
    DEEP = {"a": DEEP}

TAMPERED: dict[str, Callable[[dict[str, Any]], None]] = {
    "no manifest": removed("manifest"),
    "no origin": removed("origin"),
    "no plan": removed("plan"),
    "no seal": removed("seal"),
    "no prune": removed("prune"),
    "prune": changed(True, "prune"),
    "origin": changed("/", "origin", "base"),
    "origin of another kind": changed(7, "origin"),
    "manifest of another kind": changed([], "manifest"),
    "deep manifest": changed(DEEP, "manifest", "spec", "groups"),
    "plan of another kind": changed("x", "plan"),
    "rollout": changed({"maxUnavailable": "100%"}, "manifest", "spec", "groups", "thumbs", "rollout"),
    "secret": changed({"exec": ["touch", "ran"]}, "manifest", "spec", "secrets", "word"),
    "command": changed(["touch", "ran"], "manifest", "spec", "groups", "clock", "command"),
    "seal": changed("0" * 64, "seal"),
    "targets": changed({}, "targets"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_kept_plan_that_was_changed_is_noticed_before_anything_runs(desk: Desk, plan: Path, how: str) -> None:
    document = json.loads(plan.read_text())
    TAMPERED[how](document)
    plan.write_text(json.dumps(document))
    said = desk.fleet("apply", "plan.json", "--yes", code=None)
    assert said.code in (1, 3, 7), said
    assert "Traceback" not in said.err
    assert not (desk.folder / "ran").exists()
    assert desk.pids() == {}


def test_a_kept_plan_is_carried_out_as_it_was_written(desk: Desk, plan: Path) -> None:
    desk.fleet("apply", str(plan), "--yes")
    assert len(desk.pids()) == 5


def test_a_kept_plan_of_another_machine_is_refused(desk: Desk, plan: Path) -> None:
    (desk.state / "key").unlink()
    (desk.state / "key").write_bytes(b"k" * 32)
    said = desk.fleet("apply", str(plan), "--yes", code=7)
    assert "is not as `fleet plan --out` wrote it" in said.err


# --- records


def record_of(path: Path) -> None:
    record = records.Record(path, digest="9f31c2ab", slots=2)
    record.become("ready")
    record.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300, -1.0])
def test_a_record_with_a_time_that_is_none_is_no_record(tmp_path: Path, value: float) -> None:
    path = tmp_path / "thumbs.0.rec"
    record_of(path)
    good = path.read_bytes()
    assert records.read(path) is not None
    times = [at for at in range(16, len(good) - 8, 8) if 1e9 < struct.unpack_from("<d", good, at)[0] < 1e10]
    assert len(times) >= 3
    for at in times:
        path.write_bytes(good[:at] + struct.pack("<d", value) + good[at + 8 :])
        assert records.read(path) is None


def test_a_record_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.rec"
    record_of(path)
    os.truncate(path, 20 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert records.read(path) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10, "in KiB"


def test_a_record_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "thumbs.0.rec")
    assert records.read(tmp_path / "thumbs.0.rec") is None


# --- what fleet keeps


@pytest.mark.parametrize("name", ["overrides.yaml", "standing.json", "decisions.json", "revisions/0001.json"])
@pytest.mark.parametrize("kind", ["pipe", "sparse", "deep", "bomb"])
def test_a_kept_file_made_to_break_its_reader_is_damaged(desk: Desk, name: str, kind: str) -> None:
    desk.fleet("apply", "--yes")
    path = desk.state / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.write_text({"sparse": "x", "deep": "[" * 100_000, "bomb": merge_bomb()}[kind])
    if kind == "sparse":
        os.truncate(path, 20 << 30)
    for line in ("status", "history", "explain --live", "doctor"):
        said = desk.fleet(*line.split(), code=None)
        assert "Traceback" not in said.err


def test_a_reason_forges_no_line_and_no_escape(desk: Desk) -> None:
    desk.fleet("apply", "--yes")
    forged = "x\x1b[2J\n2026-01-01 all is well\u202e\r"
    desk.fleet("scale", "reports=2", "--live", "--yes", "--reason", forged)
    for line in ("events", "status", "explain", "history", "doctor"):
        said = desk.fleet(line, code=None)
        assert not set("\x1b\u202e\r") & set(said.out + said.err), line
        assert not any(text.startswith("2026-01-01 all") for text in said.out.splitlines()), line
    assert "\\x1b[2J" in desk.fleet("events").out
