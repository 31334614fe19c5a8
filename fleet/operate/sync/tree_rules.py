"""What a commit's tree may hold before it is written to the disk."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleet.errors import FleetError

MOST_FILES = 50_000
LONGEST_PATH = 1024
_REGULAR = frozenset({"100644", "100755", "100664"})
LINK, SUBMODULE = "120000", "160000"


class TreeRefused(FleetError):
    """A commit holds what is not written to the disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a tree, folders left out: its mode in octal, the object's id, its size in bytes, its path."""

    mode: str
    object_id: str
    size: int
    path: str

    @property
    def is_link(self) -> bool:
        """A symbolic link."""
        return self.mode == LINK


def check(entries: Sequence[Entry], targets: Mapping[str, str], *, most_bytes: int) -> None:
    """Raise TreeRefused with everything that is wrong. ``targets``: path of each link -> what it says."""
    size = sum(entry.size for entry in entries)
    problems = []
    if len(entries) > MOST_FILES:
        problems.append(f"{len(entries):,} files, and {MOST_FILES:,} is the most")
    if size > most_bytes:
        problems.append(f"its files hold {size:,} bytes, and maxSize allows {most_bytes:,}")
    problems += [problem for entry in entries if (problem := _problem(entry))]
    problems += list(_links(entries, targets))
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise TreeRefused("; ".join([*problems[:10], *more]))


def _problem(entry: Entry) -> str:
    parts = entry.path.split("/")
    if len(entry.path) > LONGEST_PATH:
        return f"a path longer than {LONGEST_PATH} characters: {entry.path[:60]!r}…"
    if entry.path.startswith("/") or any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts):
        return f"a path that leaves the tree: {entry.path!r}"
    if entry.mode not in _REGULAR | {LINK, SUBMODULE}:
        return f"{entry.path!r} has the unknown mode {entry.mode}"
    return ""


def _links(entries: Sequence[Entry], targets: Mapping[str, str]) -> Iterator[str]:
    """Links that lead out of the tree, directly or over another link on the way."""
    links = {entry.path: targets.get(entry.path, "") for entry in entries if entry.is_link}
    for path, target in sorted(links.items()):
        if not _stays(path, links):
            yield f"the link {path} leads out of the tree: {target!r}"


def _stays(path: str, links: Mapping[str, str]) -> bool:
    """Follow one link part by part, as the kernel does."""
    done: list[str] = []
    todo = path.split("/")
    for _ in range(4 * len(links) + 40):
        if not todo:
            return True
        part = todo.pop(0)
        if part in {"", "."}:
            continue
        if part == "..":
            if not done:
                return False
            done.pop()
            continue
        here = "/".join([*done, part])
        if here not in links:
            done.append(part)
            continue
        target = links[here]
        if not target or target.startswith("/") or "\x00" in target:
            return False
        todo = [*target.split("/"), *todo]
    return False  # links in a circle


def without(entries: Sequence[Entry], paths: Sequence[str]) -> tuple[Entry, ...]:
    """The entries but for these files."""
    left_out = {posixpath.normpath(path) for path in paths}
    return tuple(entry for entry in entries if entry.path not in left_out)


def below(entries: Sequence[Entry], folder: str) -> tuple[Entry, ...]:
    """The entries within a folder; all of them for ``.``."""
    clean = posixpath.normpath(folder)
    return tuple(entry for entry in entries if clean == "." or entry.path.startswith(f"{clean}/"))
