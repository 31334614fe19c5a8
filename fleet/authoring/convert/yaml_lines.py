"""YAML of other tools as plain values, with the line of every field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from fleet.errors import UsageError

_MOST_VALUES = 50_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """A value and the lines of its fields by path."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, *path: str | int) -> int:
        """The line of the field, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def documents(text: str, *, source: str, expected: str) -> list[Document]:
    """Every document of the text. Raises UsageError with the line for text that is no YAML."""
    found: list[Document] = []
    try:
        for node in yaml.compose_all(text, Loader=_LOADER):
            document = Document(None)
            document.value = _Reader(document).value(node, ())
            found.append(document)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark else source
        message = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{place}: not YAML: {' '.join(str(message).split())}", hint=expected) from error
    return found


@dataclass(slots=True)
class _Reader:
    """Nodes to values; merge keys (``<<``) are put in, and the map's own fields win."""

    document: Document
    count: int = 0

    def value(self, node: Any, path: Path) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES:
            raise yaml.YAMLError("too many values")
        self.document.lines.setdefault(path, node.start_mark.line + 1 if node else 1)
        if isinstance(node, yaml.MappingNode):
            return self._fields(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        if node is None:
            return None
        return _scalar(node)

    def _fields(self, node: Any, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[Any] = []
        for key, child in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged += child.value if isinstance(child, yaml.SequenceNode) else [child]
                continue
            name = str(key.value)
            self.document.lines[(*path, name)] = key.start_mark.line + 1
            found[name] = self.value(child, (*path, name))
        for each in merged:
            if isinstance(each, yaml.MappingNode):
                below = self._fields(each, path)
                found = {**below, **found}
        return found


def _scalar(node: Any) -> Any:
    tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
    if tag == "null":
        return None
    if tag == "bool":
        return node.value.lower() in {"true", "yes", "on"}
    if tag == "int":
        return int(node.value) if node.value.lstrip("+-").isdigit() else node.value
    return str(node.value)


def text_of(value: Any) -> str:
    """A scalar as the text that an environment variable or an argument has."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(value: Any) -> str:
    """A value for a note: short, in one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
