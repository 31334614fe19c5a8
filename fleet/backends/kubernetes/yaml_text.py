"""Objects as YAML text: block style, the order of the keys as given, one text for one value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*")
_LINES = re.compile(r"([!-~]([ -~]*[!-~])?\n)([ -~]*[!-~]\n)+")  # nothing that a block of lines would change
_WORDS_OF_YAML = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def document_text(value: Mapping[str, Any]) -> str:
    """One document, with a line break at its end."""
    return "\n".join(_map_lines(value, "")) + "\n"


def stream_text(documents: Sequence[Mapping[str, Any]]) -> str:
    """Several documents in one text."""
    return "---\n".join(map(document_text, documents))


def _map_lines(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, child in value.items():
        yield from _entry(f"{indent}{_scalar(key)}:", child, indent + "  ", indent)


def _list_lines(value: Sequence[Any], indent: str) -> Iterator[str]:
    for child in value:
        if isinstance(child, Mapping) and child:
            first, *rest = _map_lines(child, indent + "  ")
            yield f"{indent}- {first.removeprefix(indent + '  ')}"
            yield from rest
        else:
            yield from _entry(f"{indent}-", child, indent + "  ", indent + "  ")


def _entry(head: str, child: Any, map_indent: str, list_indent: str) -> Iterator[str]:
    if isinstance(child, Mapping) and child:
        yield head
        yield from _map_lines(child, map_indent)
    elif isinstance(child, list | tuple) and child:
        yield head
        yield from _list_lines(child, list_indent)
    elif isinstance(child, str) and _LINES.fullmatch(child):
        yield f"{head} |"
        yield from (f"{map_indent}{line}" for line in child.splitlines())
    else:
        yield f"{head} {_scalar(child)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS_OF_YAML:
            return value
        return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    return json.dumps(value)
