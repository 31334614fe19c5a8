"""What a replica or a group has done in all its processes, ended ones included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Totals:
    """restarts: starts but the first.  crashes: how many of them followed a crash.  done: tasks that came to their
    end, failed ones among them.  failed: those that failed."""

    restarts: int = 0
    crashes: int = 0
    done: int = 0
    failed: int = 0

    @classmethod
    def sum(cls, rows: Iterable[Totals]) -> Totals:
        """Over several replicas."""
        found = list(rows)
        return cls(*(sum(getattr(one, name) for one in found) for name in cls.__slots__))

    def to_json(self) -> dict[str, int]:
        """For ``status -o json``."""
        return {name: getattr(self, name) for name in self.__slots__}


NO_TOTALS = Totals()
