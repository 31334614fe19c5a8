"""Which of a repository's refs a source follows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fleet.core.text.format import listed
from fleet.errors import FleetError
from fleet.operate.sync import semver

Kind = Literal["branch", "tag", "semver", "commit"]
SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_BAD_NAME = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|^[-./]|[./]$|\.lock(/|$)|^@$")


class NoSuchRef(FleetError):
    """The repository does not have what the source follows."""


@dataclass(frozen=True, slots=True)
class Follows:
    """What a source follows: a kind, and the name, range or commit."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One ref of a repository. ``name`` is its full name, empty for a bare commit; ``commit`` is what it leads to."""

    name: str
    commit: str
    tag: str = ""


def problem_of(follows: Follows) -> str:
    """What is wrong with it, empty for nothing."""
    if follows.kind == "commit":
        return "" if SHA.fullmatch(follows.value) else "not a whole commit id: 40 or 64 digits, a to f in lower case"
    if follows.kind == "semver":
        try:
            semver.version_range(follows.value)
        except ValueError as error:
            return str(error)
        return ""
    return f"not the name of a {follows.kind}" if _BAD_NAME.search(follows.value) else ""


def choose(follows: Follows, refs: Mapping[str, str]) -> Choice:
    """The ref to take, from all of them by full name (``refs/tags/v1^{}`` is what an annotated tag leads to).

    Raises NoSuchRef with what there is instead.
    """
    if follows.kind == "commit":
        return Choice("", follows.value)
    if follows.kind == "branch":
        name = f"refs/heads/{follows.value}"
        if name not in refs:
            raise NoSuchRef(f"there is no branch {follows.value!r}", hint=_known(refs, "refs/heads/", "branches"))
        return Choice(name, refs[name])
    tag = follows.value if follows.kind == "tag" else _highest_tag(follows.value, refs)
    name = f"refs/tags/{tag}"
    if not tag or name not in refs:
        what = f"tag {follows.value!r}" if follows.kind == "tag" else f"version tag in the range {follows.value!r}"
        raise NoSuchRef(f"there is no {what}", hint=_known(refs, "refs/tags/", "tags"))
    return Choice(name, refs.get(f"{name}^{{}}", refs[name]), tag)


def _highest_tag(text: str, refs: Mapping[str, str]) -> str:
    tags = [name.removeprefix("refs/tags/") for name in refs if name.startswith("refs/tags/")]
    return semver.highest([tag for tag in tags if not tag.endswith("^{}")], semver.version_range(text))


def _known(refs: Mapping[str, str], prefix: str, what: str) -> str:
    names = sorted(name.removeprefix(prefix) for name in refs if name.startswith(prefix) and not name.endswith("^{}"))
    return f"{what}: {listed(names, most=8)}" if names else f"the repository has no {what}"
