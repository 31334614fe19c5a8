"""Slots of each group over the last hour: PURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

EVERY_SECONDS = 10.0
KEPT = 360
FIELDS = ("busy", "has", "slots", "need", "gets")
_Point = tuple[float, Sequence[int | None]]


class Hour:
    """Points of one fleet, one in ten seconds, the oldest first; a group that is gone stays until its hour is over."""

    def __init__(self) -> None:
        self._points: dict[str, deque[_Point]] = {}
        self._last = 0.0

    def add(self, at: float, slots: Mapping[str, Sequence[int | None]]) -> bool:
        """Take what was seen, as FIELDS has it, unless the last point is too young. at: Unix seconds."""
        if at - self._last < EVERY_SECONDS - 0.5:
            return False
        self._last = at
        for name, values in slots.items():
            self._points.setdefault(name, deque(maxlen=KEPT)).append((round(at, 1), tuple(values)))
        for name in [name for name, points in self._points.items() if at - points[-1][0] > KEPT * EVERY_SECONDS]:
            del self._points[name]
        return True

    def document(self) -> dict[str, Any]:
        """For the picture: per group points of [at, busy, has, slots, need, gets]."""
        groups = {name: [[at, *values] for at, values in points] for name, points in sorted(self._points.items())}
        return {"everySeconds": EVERY_SECONDS, "kept": KEPT, "fields": list(FIELDS), "groups": groups}
