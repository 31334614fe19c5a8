"""What a second account on the machine may do to files that fleet writes: nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fleet import file_access
from fleet.errors import CannotWrite
from fleet.state import files
from tests.accounts import attacker, give, needs_second_account, open_to_all, uid


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A manifest in a folder that both belong to the second account."""
    folder = open_to_all(tmp_path) / "theirs"
    folder.mkdir(mode=0o755)
    manifest = folder / "prod.yaml"
    manifest.write_text("old")
    manifest.chmod(0o640)
    give(folder, manifest)
    return manifest


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of root's beside it."""
    path = tmp_path / "prod.yaml"
    path.write_text("root:x:0:0")
    path.chmod(0o600)
    return path


def is_untouched(secret: Path) -> bool:
    facts = secret.stat()
    return (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (0, 0, 0o600) and (
        secret.read_text() == "root:x:0:0"
    )


@needs_second_account
def test_an_edit_keeps_owner_group_and_mode(theirs: Path) -> None:
    before = theirs.stat()
    files.rewrite(theirs, "new", was=b"old")
    after = theirs.stat()
    assert theirs.read_text() == "new"
    assert (after.st_uid, after.st_gid, after.st_mode) == (uid(), before.st_gid, before.st_mode)


@needs_second_account
def test_an_edit_gives_no_other_file_away_whatever_the_owner_renames(theirs: Path, secret: Path) -> None:
    link = theirs.with_name("link")

    def plant() -> None:
        link.symlink_to(secret)
        os.replace(link, theirs)

    def tidy() -> None:
        theirs.unlink()
        theirs.write_text("old")

    with attacker(lambda: (plant(), tidy())):
        for _ in range(300):
            try:
                files.rewrite(theirs, "new", was=b"old")
            except (CannotWrite, FileNotFoundError):
                continue
    assert is_untouched(secret), "root's file was written to, or given away"


@needs_second_account
def test_an_edit_writes_nowhere_else_when_its_folder_becomes_a_link(
    theirs: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = file_access.open_folder

    def swapped(path: Path) -> int:
        theirs.parent.rename(theirs.parent.with_name("moved"))
        theirs.parent.symlink_to(secret.parent)
        return opened(path)

    monkeypatch.setattr(files, "open_folder", swapped)
    with pytest.raises(CannotWrite):
        files.rewrite(theirs, "new", was=b"old")
    assert is_untouched(secret)


def test_an_edit_that_fails_leaves_the_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "prod.yaml"
    manifest.write_text("old")

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refused)
    with pytest.raises(CannotWrite, match="not permitted"):
        files.rewrite(manifest, "new", was=b"old")
    assert manifest.read_text() == "old"
    assert list(tmp_path.iterdir()) == [manifest]


def test_an_edit_is_refused_when_somebody_replaced_the_file_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, other = tmp_path / "prod.yaml", tmp_path / "other"
    manifest.write_text("old")
    other.write_text("theirs")
    write_new = files._write_new

    def meanwhile(*args: object) -> None:
        write_new(*args)  # type: ignore[arg-type]
        other.replace(manifest)

    monkeypatch.setattr(files, "_write_new", meanwhile)
    with pytest.raises(CannotWrite, match="replaced it meanwhile"):
        files.rewrite(manifest, "new", was=b"old")
    assert manifest.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [manifest]
