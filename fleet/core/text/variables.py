"""Values in environment variables, for code that runs on where one of them makes no sense."""

from __future__ import annotations

from collections.abc import Mapping


def count_in(environ: Mapping[str, str], variable: str, *, usual: int) -> int:
    """What the variable says, where it is a whole number above 0; else ``usual``."""
    text = environ.get(variable, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 and int(text) else usual
