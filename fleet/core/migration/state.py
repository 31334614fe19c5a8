"""How far a migration is: what each group has on the host and in the cluster. Kept on both sides, the same value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from fleet.core.decode import decoded
from fleet.core.expand.facts import MovedPart

Side = Literal["host", "cluster"]
HOST: Side = "host"
CLUSTER: Side = "cluster"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class GroupState:
    """What one group may have on each side.

    pods: in the cluster.  unit: slots of the budget of one pod.  concurrency: of the pool in a pod.  here: slots of its
    replicas on the host; they count in the budget where ``counts``.  part: slots that are kept for it meanwhile.
    to: where it is going; empty: it has arrived in the cluster.
    """

    pods: int
    unit: int
    concurrency: int
    here: int
    part: int
    counts: bool = True
    to: Literal["host", "cluster", ""] = ""

    @property
    def taken_here(self) -> int:
        """Slots of the budget that its replicas on the host take."""
        return self.here if self.counts else 0

    @property
    def there(self) -> int:
        """Slots of the budget that the host leaves to the cluster, or free: its other groups keep what they have."""
        return max(0, self.pods * self.unit, self.part - self.taken_here)

    @property
    def slots_there(self) -> int:
        """Slots of the budget that the cluster may give to this group."""
        return self.pods * self.unit if self.to else self.part


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration that has begun. Groups that are not in ``groups`` live on the host.

    is_complete: the whole fleet lives in the cluster, later groups as well.
    """

    fleet: str
    context: str
    namespace: str
    host: str
    began: float
    by: str
    groups: Mapping[str, GroupState] = field(default_factory=dict)
    is_complete: bool = False

    @property
    def place(self) -> str:
        """Where the cluster is, in words."""
        return f"namespace {self.namespace} of context {self.context}"

    def with_group(self, name: str, state: GroupState | None) -> Migration:
        """The same with another state of a group; None: it lives on the host."""
        others = {key: one for key, one in self.groups.items() if key != name}
        return replace(self, groups=others if state is None else {**others, name: state})

    def on_the_way(self) -> tuple[str, ...]:
        """Groups whose move has begun and is not over."""
        return tuple(name for name, one in self.groups.items() if one.to)

    def moved(self) -> dict[str, MovedPart]:
        """For the host: what groups have there, and what the cluster has of the budget."""
        return {name: MovedPart(one.here, one.there, self._why(one)) for name, one in self.groups.items()}

    def _why(self, state: GroupState) -> str:
        if not state.to:
            return f"lives in {self.place}"
        return f"moves to {self.place}" if state.to == CLUSTER else f"comes back from {self.place}"


def to_json(migration: Migration) -> dict[str, Any]:
    """A plain JSON document; :func:`from_json` reads it back to an equal value."""
    return {"format": FORMAT, **asdict(migration)}


def from_json(document: Mapping[str, Any]) -> Migration:
    """The migration that was written. Raises TypeError, ValueError or KeyError for a document of another shape."""
    fields = dict(document)
    if fields.pop("format") != FORMAT:
        raise ValueError("another version of fleet wrote it")
    found = decoded(Migration, fields)
    numbers = [number for one in found.groups.values() for number in (one.pods, one.unit, one.here, one.part)]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a number is none")
    return found
