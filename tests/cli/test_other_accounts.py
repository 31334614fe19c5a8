"""A home that somebody else owns, can write to, or has put links into: every verb refuses it, and doctor finds it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.file_access import make_folders
from fleet.operate.doctor.files import trust_findings
from fleet.state.paths import Places
from tests.accounts import give, needs_second_account
from tests.cli.conftest import Desk

READING = (
    *("status", "plan fleet.yaml", "history", "events", "logs", "explain --live", "render", "health"),
    *("health --fleet shop", "controller --once", "send thumbs.nothing"),
)
CHANGING = (
    *("apply fleet.yaml --yes", "scale reports=2 --live", "restart thumbs.0", "drain thumbs", "pause thumbs"),
    *("resume --all", "rollback", "down --yes", "doctor --fix"),
)


def world_writable_home(desk: Desk) -> None:
    desk.state.parent.parent.chmod(0o777)


def writable_fleet(desk: Desk) -> None:
    desk.state.parent.chmod(0o722)


def linked_state(desk: Desk) -> None:
    desk.state.rename(desk.folder / "elsewhere")
    desk.state.symlink_to(desk.folder / "elsewhere")


def linked_fleet(desk: Desk) -> None:
    root = desk.state.parent
    root.rename(desk.folder / "elsewhere")
    root.symlink_to(desk.folder / "elsewhere")


def writable_programs(desk: Desk) -> None:
    folder = desk.state.parent / "run" / "conf.d"
    make_folders(folder)
    folder.chmod(0o707)


def foreign_home(desk: Desk) -> None:
    give(desk.state.parent.parent)


def foreign_fleet(desk: Desk) -> None:
    give(desk.state.parent)


def foreign_run(desk: Desk) -> None:
    give(desk.state.parent / "run")


PLANTED: tuple[Callable[[Desk], None], ...] = (
    world_writable_home,
    writable_fleet,
    linked_state,
    linked_fleet,
    writable_programs,
)
FOREIGN: tuple[Callable[[Desk], None], ...] = (foreign_home, foreign_fleet, foreign_run)
HOMES = [*PLANTED, *(pytest.param(plant, marks=needs_second_account) for plant in FOREIGN)]


@pytest.fixture
def applied(desk: Desk) -> Desk:
    desk.fleet("apply", "fleet.yaml", "--yes")
    return desk


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mode, path.lstat().st_size) for path in folder.rglob("*")}


@pytest.mark.parametrize("plant", HOMES)
@pytest.mark.parametrize("line", [*READING, *CHANGING])
def test_every_verb_refuses_a_home_that_others_can_change(
    applied: Desk, plant: Callable[[Desk], None], line: str
) -> None:
    plant(applied)
    before = entries(applied.folder)
    said = applied.fleet(*line.split(), code=None)
    assert said.code in ((1, 9) if line.startswith("doctor") else (9,)), said
    assert "Traceback" not in said.err
    assert line.startswith("doctor") or "hint: " in said.err
    assert entries(applied.folder) == before, "nothing is written, and nothing changes its mode"


@pytest.mark.parametrize("plant", HOMES)
def test_doctor_finds_a_home_that_others_can_change(applied: Desk, plant: Callable[[Desk], None]) -> None:
    assert list(trust_findings(Places(applied.state.parent))) == []
    plant(applied)
    said = applied.fleet("doctor", code=1)
    assert "✗ permissions: " in said.out
    assert "hint: " in said.out


def linked_lock(desk: Desk) -> None:
    _linked(desk, desk.state.parent / "run" / "lock")


def linked_audit(desk: Desk) -> None:
    _linked(desk, desk.state / "audit.ndjson")


def _linked(desk: Desk, path: Path) -> None:
    path.unlink(missing_ok=True)
    (desk.folder / "victim").write_text("root:x:0:0")
    path.symlink_to(desk.folder / "victim")


def planted_program(desk: Desk) -> None:
    folder = desk.state.parent / "run" / "conf.d"
    make_folders(folder)
    (folder / "evil.conf").write_text("[program:evil]\ncommand=/bin/sh\n")


def open_document(desk: Desk) -> None:
    folder = desk.state.parent / "run" / "specs"
    make_folders(folder)
    (folder / "thumbs.0.json").write_text("{}")
    (folder / "thumbs.0.json").chmod(0o644)


def readable_folder(desk: Desk) -> None:
    desk.state.chmod(0o755)


def foreign_document(desk: Desk) -> None:
    open_document(desk)
    give(desk.state.parent / "run" / "specs" / "thumbs.0.json")


def foreign_key(desk: Desk) -> None:
    (desk.state / "key").write_bytes(b"k" * 32)
    give(desk.state / "key")


def writable_secret(desk: Desk) -> None:
    secret = desk.folder / "secret"
    secret.write_text("value")
    secret.chmod(0o640)
    text = desk.manifest.read_text().replace("  groups:\n", f"  secrets: {{word: {{file: {secret}}}}}\n  groups:\n", 1)
    desk.manifest.write_text(text.replace("queues: [thumbs]", "queues: [thumbs], secretEnv: {KEY: word}"))


FOUND: tuple[tuple[Callable[[Desk], None], str], ...] = (
    (linked_lock, "run/lock"),
    (linked_audit, "state/audit.ndjson"),
    (planted_program, "conf.d/evil.conf is not fleet's"),
    (open_document, "specs/thumbs.0.json has mode 0644, not 0600"),
    (readable_folder, "state has mode 0755, not 0700"),
    (writable_secret, "secret"),
)
FOUND_OF_OTHERS = ((foreign_document, "specs/thumbs.0.json"), (foreign_key, "state/key"))


@pytest.mark.parametrize(
    ("plant", "named"), [*FOUND, *(pytest.param(*one, marks=needs_second_account) for one in FOUND_OF_OTHERS)]
)
def test_doctor_finds_and_names_what_lets_others_in(applied: Desk, plant: Callable[[Desk], None], named: str) -> None:
    assert named not in applied.fleet("doctor", code=None).out
    plant(applied)
    said = applied.fleet("doctor", code=None)
    assert said.code != 0
    assert named in said.out + said.err
    assert "hint: " in said.out + said.err or "fleet doctor --fix" in said.out + said.err


def test_a_folder_like_tmp_above_a_home_is_fine(applied: Desk) -> None:
    applied.folder.chmod(0o1777)
    applied.fleet("status")


def test_a_private_home_behind_a_link_of_ones_own_is_fine(applied: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    home = applied.state.parent.parent
    home.rename(applied.folder / "real")
    home.symlink_to(applied.folder / "real")
    applied.fleet("status")


def test_a_lock_that_is_a_link_truncates_nothing(applied: Desk) -> None:
    victim = applied.folder / "victim"
    victim.write_text("root:x:0:0")
    lock = applied.state.parent / "run" / "lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(victim)
    said = applied.fleet("apply", "fleet.yaml", "--yes", code=1)
    assert "it is a symbolic link" in said.err
    assert victim.read_text() == "root:x:0:0"


@pytest.mark.parametrize("name", ["audit.ndjson", "overrides.yaml", "standing.json", "key", "revisions/0001.json"])
def test_a_kept_file_that_is_a_link_is_neither_read_nor_written(applied: Desk, name: str) -> None:
    victim = applied.folder / "victim"
    victim.write_text("a secret of root's")
    path = applied.state / name
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    for line in ("status", "history", "events", "scale reports=2 --live --yes", "apply fleet.yaml --yes"):
        said = applied.fleet(*line.split(), code=None)
        assert "a secret of" not in said.out + said.err
        assert "Traceback" not in said.err
    assert victim.read_text() == "a secret of root's"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


def test_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_folders(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/b/c")]
    assert modes == [0o700, 0o700, 0o700]
