"""A manifest as a tree that remembers where every value stands, and the problems found in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet.core.text.format import shown
from fleet.errors import Problem

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Source:
    """The text of one manifest file. ``name`` is what problems call it: the path as the user wrote it."""

    name: str
    text: bytes | str


@dataclass(frozen=True, slots=True)
class Position:
    """Where something is written. Lines and columns count from 1; line 0 means unknown."""

    source: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands. ``at`` is the value's place, ``key_at`` its key's.

    span, key_start: offsets of the value and of its key in the text, for edits.  flow: written with braces or brackets.
    broken: a problem with it was reported already.  whole: as a patch it replaces instead of merging (a shorthand).
    implied: made from a shorthand, so its key is not in the text.  removes: a null that took something away.
    from_env: one reference to the environment and nothing else, so it may stand where a number is meant.
    merged: brought by a merge key, so it is written elsewhere.  first_key: offset of the first key of a map.
    """

    value: Scalar | dict[str, Node] | list[Node]
    at: Position
    key_at: Position | None = None
    span: tuple[int, int] = (0, 0)
    key_start: int = 0
    flow: bool = False
    broken: bool = False
    whole: bool = False
    implied: bool = False
    removes: bool = False
    from_env: bool = False
    merged: bool = False
    first_key: int | None = None

    @property
    def place(self) -> Position:
        """Where a reader looks first: the key when there is one, else the value."""
        return self.key_at or self.at

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """Keys and values of a map, indices and items of a list, nothing for a scalar."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def get(self, *path: str | int) -> Node | None:
        """The node at a path below this one, or None."""
        node: Node | None = self
        for part in path:
            if node is None:
                return None
            if isinstance(node.value, dict):
                node = node.value.get(str(part))
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            else:
                return None
        return node

    def under(self, key_at: Position | None, key_start: int) -> Node:
        """The same value below a key that stands there. Like `with_value`: `replace` takes four times as long, and
        either is called for each value of a manifest."""
        return Node(self.value, self.at, key_at, self.span, key_start, *self._marks())

    def with_value(self, value: Scalar | dict[str, Node] | list[Node]) -> Node:
        """Another value in the same place."""
        return Node(value, self.at, self.key_at, self.span, self.key_start, *self._marks())

    def _marks(self) -> tuple[bool, bool, bool, bool, bool, bool, bool, int | None]:
        """The fields from ``flow`` on."""
        return (
            *(self.flow, self.broken, self.whole, self.implied, self.removes, self.from_env, self.merged),
            self.first_key,
        )

    def fields(self) -> dict[str, Node]:
        """The children of a map; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}


@dataclass(slots=True)
class Findings:
    """Every problem met so far, in the order met."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def add(self, at: Position, path: Path, message: str, hint: str = "") -> None:
        self.problems.append(Problem(at.source, at.line, at.column, path_text(path), message, hint))

    def warn(self, at: Position, path: Path, message: str, hint: str = "") -> None:
        """Note something that is allowed and probably a mistake."""
        self.warnings.append(Problem(at.source, at.line, at.column, path_text(path), message, hint))


def path_text(path: Path) -> str:
    """``("spec", "groups", "beat", "command", 2)`` -> ``spec.groups.beat.command[2]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]{1,64}", part):
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text


def plain(node: Node) -> Any:
    """The tree as plain Python values. Broken fields are left out; broken items stay: the others keep their index."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items() if not child.broken}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value
