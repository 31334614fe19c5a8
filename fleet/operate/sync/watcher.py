"""Who is told what goes on at this moment, for people who look on while a source is followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fleet.operate.apply.events import Listener

Loop = Literal["repository", "fleet"]
Doing = Callable[[str], None]
"""Hears what is begun now; '' where nothing goes on."""


def unheard(_what: str) -> None:
    """Nobody looks on."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """on_stage: what a loop does now, '' when it rests; called in that loop's own thread.  on_event: the steps of a
    change of the fleet."""

    on_stage: Callable[[Loop, str], None] = lambda _loop, _what: None
    on_event: Listener | None = None


NOBODY = Watcher()
