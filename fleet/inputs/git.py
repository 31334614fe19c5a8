"""Which commit a manifest lies in, read from the checkout's own files: no git is started."""

from __future__ import annotations

import re
from pathlib import Path

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def commit_of(folder: Path) -> dict[str, str]:
    """``{"sha": …, "branch": …}`` of the git checkout around ``folder``; empty where none can be read."""
    try:
        for place in (folder.resolve(), *folder.resolve().parents):
            if (place / ".git").exists():
                return _head(_git_folder(place / ".git"))
    except OSError:
        pass
    return {}


def _git_folder(path: Path) -> Path:
    """A worktree's ``.git`` is a file that names the real folder."""
    if path.is_dir():
        return path
    return (path.parent / path.read_text().removeprefix("gitdir:").strip()).resolve()


def _head(git: Path) -> dict[str, str]:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return {"sha": head} if _SHA.fullmatch(head) else {}
    reference = head.removeprefix("ref:").strip()
    facts = {"branch": reference.removeprefix("refs/heads/")}
    sha = _resolve(git, reference)
    return {"sha": sha, **facts} if sha else facts


def _resolve(git: Path, reference: str) -> str:
    common = git / "commondir"
    folders = [git, (git / common.read_text().strip()).resolve()] if common.exists() else [git]
    for folder in folders:
        loose = folder / reference
        if loose.is_file():
            return loose.read_text().strip()
        if found := _packed(folder / "packed-refs", reference):
            return found
    return ""


def _packed(path: Path, reference: str) -> str:
    if not path.is_file():
        return ""
    rows = (line.split() for line in path.read_text().splitlines() if not line.startswith(("#", "^")))
    return next((row[0] for row in rows if len(row) == 2 and row[1] == reference), "")
