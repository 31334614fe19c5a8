"""What a checkout says about itself, whoever wrote it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.inputs.git import commit_of

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def git(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / ".git"
    (folder / "refs" / "heads").mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "refs" / "heads" / "main").write_text(f"{SHA}\n")
    return folder


def test_branch_and_commit_are_read(git: Path) -> None:
    assert commit_of(git.parent) == {"sha": SHA, "branch": "main"}


def test_a_packed_branch_is_read(git: Path) -> None:
    (git / "refs" / "heads" / "main").unlink()
    (git / "packed-refs").write_text(f"# pack-refs\n{SHA} refs/heads/main\n^{SHA}\n")
    assert commit_of(git.parent) == {"sha": SHA, "branch": "main"}


@pytest.mark.parametrize(
    "head",
    [
        b"ref: ../../secret",
        b"ref: refs/heads/../../../secret",
        b"ref: /etc/hostname",
        b"ref: refs/heads/a\x1b[2Jb",
        b"ref: refs/heads/" + b"x" * 5000,
        b"\xff\xfe",
        b"ref: refs/heads/\x00",
        b"x" * 200_000,
        b"",
    ],
)
def test_a_head_that_no_git_writes_tells_nothing(git: Path, head: bytes) -> None:
    (git.parent / "secret").write_text("a line of another file\n")
    (git / "HEAD").write_bytes(head)
    assert commit_of(git.parent) == {}


def test_a_branch_file_that_holds_no_commit_is_not_shown(git: Path) -> None:
    (git / "refs" / "heads" / "main").write_text("a line of another file\n")
    assert commit_of(git.parent) == {"branch": "main"}


@pytest.mark.parametrize("name", ["HEAD", "commondir", "refs/heads/main", "packed-refs"])
def test_a_pipe_in_a_checkout_does_not_hang(git: Path, name: str) -> None:
    if name == "packed-refs":
        (git / "refs" / "heads" / "main").unlink()
    (git / name).unlink(missing_ok=True)
    os.mkfifo(git / name)
    assert "sha" not in commit_of(git.parent)


def test_a_git_file_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".git")
    assert commit_of(tmp_path) == {}
