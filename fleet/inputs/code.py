"""Which code lies in a working folder: its commit, or a digest of its source files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fleet.inputs.git import commit_of

Watch = Literal["commit", "content", "off"]
_DIGITS = 12
_SUFFIXES = (".py", ".toml", ".cfg", ".ini", ".lock")
_FOREIGN = frozenset({"__pycache__", "node_modules", "site-packages"})


def code_of(folder: Path, watch: Watch) -> str:
    """``commit 0123456789ab`` or ``content 0123456789ab``; empty where nothing is watched.

    A folder that lies in no checkout is watched by its content. What is not committed is not seen by its commit.
    """
    if watch == "off":
        return ""
    sha = commit_of(folder).get("sha", "") if watch == "commit" else ""
    return f"commit {sha[:_DIGITS]}" if sha else f"content {_content(folder)[:_DIGITS]}"


def _content(folder: Path) -> str:
    """Over names and bytes of the source files, whatever their times and modes."""
    total = hashlib.sha256()
    for path in _sources(folder):
        try:
            data = path.read_bytes()
        except OSError:  # removed at this moment, or not ours to read
            continue
        name = str(path.relative_to(folder)).encode(errors="surrogateescape")
        total.update(b"%d %s %s" % (len(name), name, hashlib.sha256(data).digest()))
    return total.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    """The app's own: no hidden folders, no virtual environments, nothing that was installed."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_foreign(Path(place) / name))
        yield from (Path(place) / name for name in sorted(files) if name.endswith(_SUFFIXES))


def _is_foreign(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _FOREIGN or (path / "pyvenv.cfg").exists()
