"""Scripts that wait for something outside before they run a program: ``wait-for-it.sh db:5432 -- gunicorn``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.core.text.format import seconds_in
from fleet.core.text.outside_url import url_problem

_SCRIPT = re.compile(r"(?:^|/)(wait-for-it|wait-for|wait_for_it|wait_for|dockerize)(\.sh|\.py|\.bash)?$")
_PLACE = re.compile(r"[A-Za-z0-9_.-]+:[0-9]{1,5}")
_VALUES = frozenset({"-t", "--timeout", "-timeout", "-wait", "-wait-retry-interval", "-h", "-p", "--host", "--port"})


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is waited for, for how long (0: the script says nothing), and the words of the program."""

    urls: tuple[str, ...]
    seconds: float
    words: list[str]


def without_waiting(words: Sequence[str]) -> Waiting | None:
    """The words behind such a script; None where none stands there, or its options are not known."""
    if not words or _SCRIPT.search(words[0]) is None:
        return None
    rest, urls, seconds = list(words[1:]), [], 0.0
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if word == "--":
            break
        if _PLACE.fullmatch(word):
            urls.append(f"tcp://{word}")
        elif not word.startswith("-"):
            rest.insert(0, word)  # dockerize has the program right behind its options
            break
        elif name in {"-s", "--strict", "-q", "--quiet"}:
            continue
        elif name in _VALUES and (value or rest):
            value = value or rest.pop(0)
            if name == "-wait" and not url_problem(value):
                urls.append(value)
            elif name in {"-t", "--timeout", "-timeout"} and (found := seconds_in(f"{value}s") or seconds_in(value)):
                seconds = found
            else:
                return None
        else:
            return None
    return Waiting(tuple(urls), seconds, rest) if urls and rest else None
