"""Amounts as other tools write them, as the manifest does: sizes, processors, files."""

from __future__ import annotations

import re

_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAMES = {"": "", "k": "Ki", "m": "Mi", "g": "Gi", "t": "Ti"}
_LEAST_BYTES = 1 << 20
_FILES = range(16, 1_048_577)


def memory(text: str, *, decimal: bool = False) -> str | None:
    """``512m``, ``1GB``, ``2Gi`` -> ``512Mi``, ``1Gi``, ``2Gi``; None for what is none or too small.

    decimal: without an ``i`` the units are powers of ten, as in Kubernetes.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None:
        return None
    number, unit, is_binary = match[1], match[2], bool(match[3])
    if decimal and unit and not is_binary:
        number, unit = str(round(float(number) * _DECIMAL[unit])), ""
    return f"{number}{_NAMES[unit]}" if float(number) * _BINARY[unit] >= _LEAST_BYTES else None


def processors(text: str) -> float | None:
    """``0.5``, ``500m``, ``150%`` -> processors; None for what is none."""
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,6})?)(m|%)?", text.strip())
    number = float(match[1]) / {"m": 1000, "%": 100, None: 1}[match[2]] if match else 0.0
    if not 0.001 <= number <= 10_000:
        return None
    return int(number) if number == int(number) else round(number, 3)


def open_files(text: str) -> int | None:
    """``1024``, ``1024:4096`` -> the larger; None for what is none, or more than a process can have."""
    parts = text.strip().split(":")
    if not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        return None
    most = max(map(int, parts))
    return most if most in _FILES else None
