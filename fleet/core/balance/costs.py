"""What slots cost beside being slots: memory, cores, processes, connections, in integers per replica and per slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.core.text.format import size

PROCESSES, MEMORY = "processes", "memory"
"""Resources by the names people read; memory is in bytes, everything else is counted."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a replica, and each slot in it, takes of each resource.

    most: what one replica can use of a resource however many slots it has. A process under the GIL runs on one core.
    """

    replica: Mapping[str, int] = field(default_factory=dict)
    slot: Mapping[str, int] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)

    def used(self, resource: str, slots: int, *, slots_per_replica: int) -> int:
        """What ``slots`` take as full replicas and at most one smaller."""
        full, rest = divmod(slots, slots_per_replica)
        return full * self._by_replica(resource, slots_per_replica) + self._by_replica(resource, rest)

    def _by_replica(self, resource: str, slots: int) -> int:
        if not slots:
            return 0
        wanted = self.slot.get(resource, 0) * slots
        return self.replica.get(resource, 0) + min(wanted, self.most.get(resource, wanted))


FREE = Prices()


def overdrawn(used: Mapping[str, int], capacity: Mapping[str, int]) -> list[str]:
    """Resources of which more is used than is there, sorted."""
    return sorted(resource for resource, there in capacity.items() if used.get(resource, 0) > there)


def amount_of(resource: str, count: int) -> str:
    """``512Mi`` for memory, else a plain number."""
    return size(count) if resource == MEMORY else str(count)
