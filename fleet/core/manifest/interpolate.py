"""``${env:NAME}`` and ``${env:NAME:-default}`` in values; nothing else is a template.

What is put in stays text and is never read as YAML again; where a field is a number, a value that is one reference and
gives a number is taken as it. ``$${env:NAME}`` stands for the characters themselves.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from fleet.core.manifest.tree import Findings, Node, Path
from fleet.core.text.format import shown

_REFERENCE = r"\$(?P<escaped>\$)?\{env:(?P<body>[^}]*)(?P<end>\})?"
_BODY = r"(?s)(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-(?P<text>.*))?"
_UNUSABLE = "[\x00\ud800-\udfff]"


def interpolate(node: Node, environ: Mapping[str, str], findings: Findings, path: Path = ()) -> Node:
    """The tree with every reference replaced. Keys are left alone."""
    if isinstance(node.value, str):
        return _text(node, environ, findings, path)
    if isinstance(node.value, dict):
        fields = {key: interpolate(child, environ, findings, (*path, key)) for key, child in node.value.items()}
        return node if _same(fields.values(), node.value.values()) else node.with_value(fields)
    if isinstance(node.value, list):
        items = [interpolate(child, environ, findings, (*path, index)) for index, child in enumerate(node.value)]
        return node if _same(items, node.value) else node.with_value(items)
    return node


def _same(new: Iterable[Node], old: Iterable[Node]) -> bool:
    return all(map(operator.is_, new, old))


def _text(node: Node, environ: Mapping[str, str], findings: Findings, path: Path) -> Node:
    text = node.value
    if not isinstance(text, str) or "{env:" not in text or node.broken:
        return node
    wrong: list[tuple[str, str]] = []
    result = re.sub(_REFERENCE, lambda match: _value(match, environ, wrong), text)
    for message, hint in wrong:
        findings.add(node.place, path, message, hint)
    whole = re.fullmatch(_REFERENCE, text)
    return replace(node, value=result, broken=bool(wrong), from_env=whole is not None and not whole["escaped"])


def _value(match: re.Match[str], environ: Mapping[str, str], wrong: list[tuple[str, str]]) -> str:
    if match["escaped"]:
        return match[0][1:]
    body = re.fullmatch(_BODY, match["body"])
    if body is not None and "${" in (body["text"] or ""):
        hint = "give a plain default, or set the variable for the fleet command"
        wrong.append((f"a reference inside a reference: {shown(match[0])}", hint))
        return ""
    if body is None or match["end"] is None:
        hint = "write ${env:NAME} or ${env:NAME:-default}; for the characters themselves $${env:"
        wrong.append((f"not a reference to the environment: {shown(match[0])}", hint))
        return ""
    value = environ.get(body["name"])
    if body["default"] and not value:
        return str(body["text"])
    if value is None:
        hint = f"set it, or give a default: ${{env:{body['name']}:-default}}"
        wrong.append((f"the environment variable {body['name']} is not set", hint))
        return ""
    if bad := re.search(_UNUSABLE, value):
        wrong.append((f"the environment variable {body['name']} is not UTF-8 text", f"U+{ord(bad[0]):04X} is in it"))
        return ""
    return value
