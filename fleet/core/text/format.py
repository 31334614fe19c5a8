"""Numbers and values as text that people read and write: durations, sizes, quoted text, counted nouns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_SIZES = ((1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"))
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
LONGEST_VALUE = 48


def seconds_in(text: str) -> float | None:
    """``1h30m`` -> ``5400.0``; None for a text that is no duration."""
    if not re.fullmatch(DURATION_PATTERN[1:-1], text):
        return None
    parts = re.findall(r"([0-9.]+)([a-z]+)", text)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def duration(seconds: float) -> str:
    """``90.0`` -> ``1m30s``, in the notation manifests use."""
    if 0 < seconds < 1:
        return f"{round(seconds * 1000)}ms"
    whole, fraction = divmod(seconds, 60)
    hours, minutes = divmod(int(whole), 60)
    parts = [f"{hours}h"] if hours else []
    parts += [f"{minutes}m"] if minutes else []
    parts += [f"{round(fraction, 3):g}s"] if fraction or not parts else []
    return "".join(parts)


def size(count_bytes: int) -> str:
    """``629145600`` -> ``600Mi``: exact where a unit allows it, else to one decimal."""
    for unit, name in _SIZES:
        if count_bytes >= unit:
            return f"{count_bytes // unit}{name}" if count_bytes % unit == 0 else f"{count_bytes / unit:.1f}{name}"
    return str(count_bytes)


def quoted(text: str) -> str:
    """The text in double quotes, unprintable characters escaped, cut when it is long."""
    cut = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" for char in json.dumps(cut, ensure_ascii=False)
    )


# Slow to compile, so not before there is text that needs them; what Python calls printable never does.
_CONTROLS = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_LINES = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
LONGEST_SHOWN = 8192


def one_line(text: str, *, most: int = LONGEST_SHOWN) -> str:
    """Text of others as a log or a terminal may hold it: no control characters, on one line, cut when it is long."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut if cut.isprintable() else re.sub(_LINES, _escaped, cut)


def printable(text: str) -> str:
    """Text of others without what a terminal obeys; it may have several lines."""
    return text if text.replace("\n", "").isprintable() else re.sub(_CONTROLS, _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code, short = ord(found[0]), {10: "\\n", 13: "\\r"}
    return short.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def counted(count: int, noun: str, nouns: str = "") -> str:
    """``1 replica``, ``2 replicas``; the plural is given where an s does not make it."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def listed(items: Iterable[str], *, most: int = 4, mark: str = ", ") -> str:
    """``a, b, c and 2 more``."""
    every = list(items)
    shown = mark.join(every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def shown(value: object, limit: int = 60) -> str:
    """A value as a message may show it: quoted, on one line, short."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 2]}…{text[-1]}"
