"""Plain words of YAML: what they mean to everyone, and which ones YAML 1.1 and 1.2 tools read differently."""

from __future__ import annotations

import re

from fleet.core.manifest.tree import Scalar
from fleet.core.text.format import shown

_INTEGER = r"[-+]?(?:0|[1-9][0-9]*)"
_DECIMAL = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_BOOLEAN_TRAPS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_OCTAL_TRAP = r"[-+]?0[0-9_]+"
_RADIX_TRAP = r"[-+]?0[oxbOXB][0-9a-fA-F_]+"
_CLOCK_TRAP = r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
_UNDERSCORE_TRAP = r"[-+]?[0-9.]+_[0-9_.]*"
_DATE_TRAP = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"
_INFINITE_TRAP = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_LONGEST_NUMBER = 15


def resolve(text: str) -> tuple[Scalar, str, str]:
    """A plain scalar -> (value, trap, hint). A trap is what YAML 1.1 and 1.2 tools read differently."""
    if text in _WORDS:
        return _WORDS[text], "", ""
    if (meant := _BOOLEAN_TRAPS.get(text.lower())) is not None:
        return text, f"some YAML tools read {text} as {meant}, others as text", f'write {meant}, or "{text}" for text'
    if not re.match(_NUMBERISH, text):
        return text, "", ""
    return _number(text)


_NUMBERISH = r"[-+.]?[0-9]|[-+]?\.[a-zA-Z]"


def _number(text: str) -> tuple[Scalar, str, str]:
    quoted = f'write "{text}" in quotes for text'
    if re.fullmatch(_INTEGER, text) and len(text) <= _LONGEST_NUMBER:
        return int(text), "", ""
    if re.fullmatch(_OCTAL_TRAP, text):
        return text, f"some YAML tools read {text} as octal", f"{quoted}, or leave the leading zero out"
    if re.fullmatch(_RADIX_TRAP, text):
        return text, f"YAML tools do not agree on the number {text}", f"{quoted}, or the number in decimal"
    if re.fullmatch(_CLOCK_TRAP, text):
        return text, f"some YAML tools read {text} as a number to the base of 60", quoted
    if re.fullmatch(_UNDERSCORE_TRAP, text):
        return text, f"some YAML tools read {text} as a number", f"{quoted}, or the number without underscores"
    if re.fullmatch(_DATE_TRAP, text):
        return text, f"some YAML tools read {text} as a date", quoted
    if re.fullmatch(_INFINITE_TRAP, text) or (re.fullmatch(_INTEGER, text) and len(text) > _LONGEST_NUMBER):
        return text, f"{shown(text)} is no number that can be used here", "write it in quotes for text"
    if re.fullmatch(_DECIMAL, text):
        return _decimal(text)
    return text, "", ""


def _decimal(text: str) -> tuple[Scalar, str, str]:
    value = float(text)
    if value in (float("inf"), float("-inf")) or len(text) > _LONGEST_NUMBER * 2:
        return text, f"{shown(text)} is no number that can be used here", "write it in quotes for text"
    return value, "", ""
