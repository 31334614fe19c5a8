"""Words for people: the one that was probably meant, several in a row, what kind of value something is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fleet.core.text.format import listed, shown

MOST_KNOWN = 30
"""Known words that a hint lists; of a fleet with hundreds of groups nobody reads all."""


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or nothing."""
    known_bare = {bare(name): name for name in known}
    asked = bare(word)
    if asked in known_bare:
        return known_bare[asked]
    import difflib  # only for what is not known

    found = difflib.get_close_matches(asked, known_bare, n=1, cutoff=0.6)
    return known_bare[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'gevent'? known: …`` for a hint: the closest word if one is near, and what is known; ``""`` where
    nothing is."""
    names = sorted(known)
    if not names:
        return ""
    near = closest(word, names)
    every = f"known: {listed(names, most=MOST_KNOWN)}"
    return f"did you mean {near!r}? {every}" if near else every


def one_of(words: Iterable[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *first, last = sorted(words)
    return f"{', '.join(first)} or {last}" if first else last


def kind_of(value: Any) -> str:
    """What a value is, in words: ``the number 20``, ``a list``."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {shown(value)}"
        case list():
            return "a list"
    return "a map"


def bare(word: str) -> str:
    """A word without what joins its parts: ``time_limit`` and ``timeLimit`` are alike."""
    return re.sub(r"[-_\s]", "", word[:100]).lower()
