"""Edits to manifest text that change nothing else: ``fleet scale`` writes a replica count into people's files.

The text is cut at the places the parser remembers, so that comments, quotes, order and line endings stay byte for byte.
Every edit is read back and compared with what was meant before it is given to anyone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.core.manifest import merge
from fleet.core.manifest.tree import Findings, Node, Source, plain
from fleet.core.manifest.yaml_reader import decode, load
from fleet.core.text.format import shown
from fleet.core.text.suggest import did_you_mean
from fleet.errors import ManifestError, UsageError

MOST_REPLICAS = 10_000
_BY_HAND = "edit the file by hand"


def edit_replicas(sources: Sequence[Source], replicas: Mapping[str, int]) -> dict[str, str]:
    """Name -> new text, of those files of an overlay that must change. The file that says a count last is the one.

    Raises UsageError when it cannot be done faithfully.
    """
    files = [_File.read(source) for source in sources]
    merged = merge.inherit(merge.merge_all([merge.expand_shorthands(file.tree, Findings()) for file in files]))
    texts = {file.name: file.text for file in files}
    for group, count in sorted(replicas.items()):
        _refuse_nonsense(merged, group, count)
        name = _owner(files, group).name
        texts[name] = _edited(_File.read(Source(name, texts[name])), group, count)
    return {file.name: texts[file.name] for file in files if texts[file.name] != file.text}


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a manifest, as text and as a tree. ``bom``: it began with a byte order mark."""

    name: str
    text: str
    tree: Node

    @classmethod
    def read(cls, source: Source) -> _File:
        findings = Findings()
        tree = load(source, findings)
        text = decode(source, Findings())
        if tree is None or text is None or findings.problems:
            raise ManifestError(findings.problems)
        raw = source.text if isinstance(source.text, str) else source.text.decode()
        return cls(source.name, raw, tree)

    def group(self, name: str) -> Node | None:
        """The node of a group in this file, or None."""
        return self.tree.get("spec", "groups", name)


def _refuse_nonsense(merged: Node, group: str, count: int) -> None:
    groups = merged.get("spec", "groups")
    known = sorted(groups.fields()) if groups else []
    if group not in known:
        raise UsageError(f"there is no group {shown(group)}", hint=did_you_mean(group, known))
    if not 0 <= count <= MOST_REPLICAS:
        raise UsageError(f"{group}: {count} is not a number of replicas", hint=f"give 0 to {MOST_REPLICAS:,}")
    for part in ("share", "autoscale"):
        node = merged.get("spec", "groups", group, part)
        if node is not None and node.value is not None:
            hint = f"change {part}.min and {part}.max, or spec.concurrency; `--live` overrides for a while"
            raise UsageError(f"the replicas of {group} follow from its {part}", hint=hint)


def _owner(files: Sequence[_File], group: str) -> _File:
    """The last file that gives the count; else the last that describes the group."""
    says = [file for file in files if (count := file.tree.get("spec", "groups", group, "replicas")) and _given(count)]
    describes = [file for file in files if (node := file.group(group)) is not None and isinstance(node.value, dict)]
    if not says and not describes:
        raise UsageError(f"no file describes {group} as a map", hint=_BY_HAND)
    return (says or describes)[-1]


def _given(node: Node) -> bool:
    return node.value is not None


def _edited(file: _File, group: str, count: int) -> str:
    node = file.group(group)
    old = node.get("replicas") if node else None
    if old is not None and old.merged:
        old = None  # written elsewhere, for others too; the group's own value wins
    offset = 1 if file.text.startswith("\ufeff") else 0
    if node is None or not isinstance(node.value, dict):
        raise UsageError(f"{file.name} does not describe {group} as a map", hint=_BY_HAND)
    if old is not None and old.value == count and not isinstance(old.value, bool):
        return file.text
    text = _replaced(file.text, old, count, offset) if old is not None else _inserted(file.text, node, count, offset)
    _compare(file, group, count, text)
    return text


def _replaced(text: str, old: Node, count: int, offset: int) -> str:
    start, end = (position + offset for position in old.span)
    gap = " " if start == end and text[start - 1 : start] == ":" else ""
    return f"{text[:start]}{gap}{count}{text[end:]}"


def _inserted(text: str, group: Node, count: int, offset: int) -> str:
    start = group.span[0] + offset
    if group.flow:
        return _inserted_in_braces(text, start, group, count, offset)
    key = (group.first_key or 0) + offset
    line = max(text.rfind("\n", 0, key), text.rfind("\r", 0, key)) + 1
    ending = "\r\n" if "\r\n" in text else "\n"
    return f"{text[:line]}{text[line:key]}replicas: {count}{ending}{text[line:]}"


def _inserted_in_braces(text: str, start: int, group: Node, count: int, offset: int) -> str:
    """``{replicas: 3, …}``; as JSON does it, with quotes and on a line of its own, where the text is written so."""
    brace = text.index("{", start) + 1
    field = f'"replicas": {count}' if _is_json(text) else f"replicas: {count}"
    if group.first_key is None:
        return f"{text[:brace]}{field}{text[brace:]}"
    key = group.first_key + offset
    gap = text[brace:key]
    apart = gap if "\n" in gap and not gap.strip() else " "
    before = text[:key] if apart == gap or not gap.strip() else text[:brace]
    return f"{before}{field},{apart}{text[len(before) :]}"


def _is_json(text: str) -> bool:
    return re.match(r'\ufeff?\s*\{\s*"', text) is not None


def _compare(file: _File, group: str, count: int, text: str) -> None:
    """The edit must change this one value and nothing else, or it is refused."""
    findings = Findings()
    tree = load(Source(file.name, text), findings)
    meant: Any = plain(file.tree)
    meant["spec"]["groups"][group]["replicas"] = count
    if tree is None or findings.problems or plain(tree) != meant:
        message = f"{file.name}: the replicas of {group} cannot be changed without changing something else"
        raise UsageError(message, hint=f"{_BY_HAND}; anchors and aliases are the usual reason")
