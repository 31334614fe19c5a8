"""The keys that fleet adds to a Redis, beside kombu's queues, and the names of those that hold messages there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that fleet adds to a broker, as one holder sees them. Queues themselves are kombu's."""

    prefix: str
    holder: str

    @property
    def leases(self) -> str:
        """Sorted set: holder -> end of its lease in milliseconds."""
        return f"{self.prefix}fleet:leases"

    @property
    def holders(self) -> str:
        """Hash: holder -> its inboxes and their lists, as JSON."""
        return f"{self.prefix}fleet:holders"

    @property
    def suspects(self) -> str:
        """Hash: holder -> the end of its lease and when it was seen over."""
        return f"{self.prefix}fleet:suspects"

    @property
    def looking(self) -> str:
        """Exists while a replica has looked after the others recently."""
        return f"{self.prefix}fleet:looking"

    @property
    def held(self) -> str:
        """Hash of this holder: tag -> list and envelope; of a large message the list alone."""
        return f"{self.prefix}fleet:held:{self.holder}"

    def apart(self, tag: str) -> str:
        """List of one: the envelope of a large message that this holder has."""
        return f"{self.held}:{tag}"

    @property
    def mark(self) -> str:
        """Left when the messages of this holder were given to others."""
        return f"{self.prefix}fleet:given-away:{self.holder}"

    def inbox(self, queue: str) -> str:
        """List: messages that arrived for this holder while it waited on the queue."""
        return f"{self.prefix}fleet:inbox:{self.holder}:{queue}"

    def delayed(self, queue: str) -> str:
        """Sorted set, shared by all: list and envelope -> due, in milliseconds."""
        return f"{self.prefix}fleet:delayed:{queue}"


def member_name(fleet: str, replica: str) -> str:
    """How the name of every holder begins that is a process of this replica. Host, pid and birth follow."""
    return f"{fleet}/{replica}@"


def replica_of(holder: str, fleet: str) -> str | None:
    """The replica whose process a holder is; None where it belongs to another fleet."""
    owner, _, member = holder.partition("/")
    replica, at, _ = member.partition("@")
    return replica if owner == fleet and at else None
