"""Which commit a manifest lies in, read from the checkout's own files: no git is started.

The checkout may be anybody's: what its files say is used only where it has the form of a commit or a branch.
"""

from __future__ import annotations

import re
from pathlib import Path

from fleet.file_access import KEPT_BYTES, SMALL_BYTES, read_file

_SHA = r"[0-9a-f]{40}([0-9a-f]{24})?"
_REFERENCE = r"(?a)refs/[\w.+@/-]{1,200}"


def commit_of(folder: Path) -> dict[str, str]:
    """``{"sha": …, "branch": …}`` of the git checkout around ``folder``; empty where none can be read."""
    try:
        for place in (folder.resolve(), *folder.resolve().parents):
            if (place / ".git").exists():
                return _head(_git_folder(place / ".git"))
    except (OSError, ValueError, RuntimeError):  # not UTF-8, a NUL in a path, links in a circle
        pass
    return {}


def _git_folder(path: Path) -> Path:
    """A worktree's ``.git`` is a file that names the real folder."""
    if path.is_dir():
        return path
    return (path.parent / _words(path).removeprefix("gitdir:").strip()).resolve()


def _words(path: Path, *, limit_bytes: int = SMALL_BYTES) -> str:
    return read_file(path, limit_bytes=limit_bytes).decode().strip()


def _head(git: Path) -> dict[str, str]:
    head = _words(git / "HEAD")
    if not head.startswith("ref:"):
        return {"sha": head} if re.fullmatch(_SHA, head) else {}
    reference = head.removeprefix("ref:").strip()
    if not re.fullmatch(_REFERENCE, reference) or ".." in reference:
        return {}
    facts = {"branch": reference.removeprefix("refs/heads/")}
    sha = _resolve(git, reference)
    return {"sha": sha, **facts} if re.fullmatch(_SHA, sha) else facts


def _resolve(git: Path, reference: str) -> str:
    common = git / "commondir"
    folders = [git, (git / _words(common)).resolve()] if common.exists() else [git]
    for folder in folders:
        loose = folder / reference
        if loose.is_file():
            return _words(loose)
        if found := _packed(folder / "packed-refs", reference):
            return found
    return ""


def _packed(path: Path, reference: str) -> str:
    if not path.is_file():
        return ""
    lines = _words(path, limit_bytes=KEPT_BYTES).splitlines()
    rows = (line.split() for line in lines if not line.startswith(("#", "^")))
    return next((row[0] for row in rows if len(row) == 2 and row[1] == reference), "")
