"""Checkouts: one folder per commit, whole or not there at all, a few of them kept."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.file_access import make_folders
from fleet.operate.sync import tree_rules
from fleet.operate.sync.git import Repository
from fleet.operate.sync.refs import SHA

KEPT = 5


@dataclass(frozen=True, slots=True)
class Checkouts:
    """The checkouts of one source. ``most_bytes`` bounds each of them."""

    folder: Path
    repository: Repository
    most_bytes: int

    def path(self, commit: str) -> Path:
        """Where the files of a commit are, or would be."""
        return self.folder / commit

    def make(self, commit: str) -> Path:
        """The folder of a commit, written now where it is missing. Raises TreeRefused for a tree that may not be."""
        place = self.path(commit)
        if place.is_dir():
            return place
        self.check(commit)
        make_folders(self.folder)
        fresh = Path(tempfile.mkdtemp(prefix=f".{commit}.", dir=self.folder))
        try:
            self.repository.write_tree(commit, fresh)
            try:
                os.rename(fresh, place)
            except OSError:
                if not place.is_dir():  # somebody else made it meanwhile: it is the same
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return place

    def check(self, commit: str) -> Sequence[tree_rules.Entry]:
        """The entries of a commit. Raises TreeRefused where one may not be written to the disk."""
        entries = self.repository.tree(commit)
        tree_rules.check(entries, self.repository.link_targets(entries), most_bytes=self.most_bytes)
        return entries

    def code_mark(self, commit: str, *, but: Sequence[str]) -> str:
        """The same for two commits that differ in these files only: in the manifests, and in no code."""
        rows = [(one.mode, one.object_id, one.path) for one in tree_rules.without(self.repository.tree(commit), but)]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def sweep(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.glob(".*") if self.folder.is_dir() else ():
            shutil.rmtree(path, ignore_errors=True)

    def tidy(self, needed: Collection[str]) -> None:
        """Remove all but the needed and the newest few."""
        remove_old(self.folder, SHA, needed=needed, keep=KEPT)


def remove_old(folder: Path, names: re.Pattern[str], *, needed: Collection[str], keep: int) -> None:
    """Remove the folders with such names below a folder, all but the needed and the newest ``keep``."""
    if not folder.is_dir():
        return
    whole = [path for path in folder.iterdir() if names.fullmatch(path.name)]
    whole.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in whole[keep:]:
        if path.name not in needed:
            shutil.rmtree(path, ignore_errors=True)
