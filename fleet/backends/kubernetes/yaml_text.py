"""Objects as YAML text: block style, the order of the keys as given, one text for one value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

_PLAIN = r"[A-Za-z/][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*"
_LINES = r"([!-~]([ -~]*[!-~])?\n)([ -~]*[!-~]\n)+"  # nothing that a block of lines would change
_WORDS_OF_YAML = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_UNPRINTABLE = "[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"


def document_text(value: Mapping[str, Any]) -> str:
    """One document, with a line break at its end."""
    lines: list[str] = []
    _put_map(lines, value, "", "")
    return "\n".join(lines) + "\n"


def stream_text(documents: Sequence[Mapping[str, Any]]) -> str:
    """Several documents in one text."""
    return "---\n".join(map(document_text, documents))


def _put_map(lines: list[str], value: Mapping[str, Any], first: str, indent: str) -> None:
    """``first``: what stands before the first key, a dash in a list."""
    lead = first or indent
    for key, child in value.items():
        _put(lines, f"{lead}{_text(key)}:", child, indent + "  ", indent)
        lead = indent


def _put_list(lines: list[str], value: Sequence[Any], indent: str) -> None:
    for child in value:
        if isinstance(child, dict) and child:
            _put_map(lines, child, f"{indent}- ", indent + "  ")
        else:
            _put(lines, f"{indent}-", child, indent + "  ", indent + "  ")


def _put(lines: list[str], head: str, child: Any, map_indent: str, list_indent: str) -> None:
    if isinstance(child, str):
        if child.endswith("\n") and re.fullmatch(_LINES, child):
            lines.append(f"{head} |")
            lines.extend(f"{map_indent}{line}" for line in child.splitlines())
        else:
            lines.append(f"{head} {_text(child)}")
    elif isinstance(child, dict) and child:
        lines.append(head)
        _put_map(lines, child, "", map_indent)
    elif isinstance(child, list | tuple) and child:
        lines.append(head)
        _put_list(lines, child, list_indent)
    else:
        lines.append(f"{head} {json.dumps(child)}")


@lru_cache(maxsize=4096)
def _text(value: str) -> str:
    if re.fullmatch(_PLAIN, value) and value.lower() not in _WORDS_OF_YAML:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return quoted if quoted.isprintable() else re.sub(_UNPRINTABLE, lambda found: f"\\u{ord(found[0]):04x}", quoted)
