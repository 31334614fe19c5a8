"""The slots of one simulated group: how they start, take tasks and leave depends on the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(eq=False, slots=True)
class StartingSlots:
    """Slots that are starting together; some of them may be called off meanwhile."""

    slots: int


@dataclass(eq=False, slots=True)
class Process:
    """One process with slots that come and go together."""

    slots: int
    busy: int = 0
    is_ready: bool = False
    is_leaving: bool = False


Token = StartingSlots | Process


class SlotPool(Protocol):
    """ready, starting, draining, busy: slots; those that drain are busy and take nothing new."""

    ready: int
    starting: int
    draining: int
    busy: int

    def take(self) -> Token | None:
        """Put a task into a free slot; None where there is none."""

    def give_back(self, token: Token, /) -> None:
        """The task of this slot has ended."""

    def grow(self, slots: int) -> list[Token]:
        """Begin to start slots; what is returned becomes ready with ``started``."""

    def started(self, token: Token, /) -> None:
        """These slots may take tasks, unless they were called off."""

    def shrink(self, slots: int) -> int:
        """Let slots go: starting ones, idle ones, and last those that are busy, once they are done. Returns how many
        left or will leave."""


class ResizablePool:
    """A pool whose number of slots is a limit that changes while it runs (prefork, threads, green ones).

    Idle slots leave at once, and any task that ends frees a slot. Raising the limit over slots that drain is free.
    """

    def __init__(self) -> None:
        self.ready = self.starting = self.draining = self.busy = 0
        self._batches: list[StartingSlots] = []
        self._limit = StartingSlots(0)

    def take(self) -> Token | None:
        """None while some slots drain, for then all are busy."""
        if self.busy >= self.ready:
            return None
        self.busy += 1
        return self._limit

    def give_back(self, _token: Token, /) -> None:
        """A slot that drains is gone."""
        self.busy -= 1
        if self.draining:
            self.draining -= 1

    def grow(self, slots: int) -> list[Token]:
        """Slots that drain are taken back first."""
        back = min(slots, self.draining)
        self.draining -= back
        self.ready += back
        if slots == back:
            return []
        batch = StartingSlots(slots - back)
        self._batches.append(batch)
        self.starting += batch.slots
        return [batch]

    def started(self, token: Token, /) -> None:
        self._batches = [batch for batch in self._batches if batch is not token]
        self.starting -= token.slots
        self.ready += token.slots

    def shrink(self, slots: int) -> int:
        """Newest starts first."""
        wanted = slots
        for batch in reversed(self._batches):
            off = min(slots, batch.slots)
            batch.slots -= off
            self.starting -= off
            slots -= off
        idle = min(slots, max(0, self.ready - self.busy))
        self.ready -= idle
        draining = min(slots - idle, self.ready)
        self.ready -= draining
        self.draining += draining
        return wanted - slots + idle + draining


class ReplicaPool:
    """A pool that moves by whole processes (solo, custom): each takes nothing new once told, and leaves when done."""

    def __init__(self, unit: int) -> None:
        self.ready = self.starting = self.draining = self.busy = 0
        self._unit = unit
        self._replicas: list[Process] = []
        self._free: list[Process] = []

    def take(self) -> Token | None:
        while self._free:
            replica = self._free[-1]
            if not replica.is_leaving:
                replica.busy += 1
                self.busy += 1
            if replica.is_leaving or replica.busy == replica.slots:
                self._free.pop()
            if not replica.is_leaving:
                return replica
        return None

    def give_back(self, token: Token, /) -> None:
        """A leaving replica goes with its last task."""
        assert isinstance(token, Process)
        token.busy -= 1
        self.busy -= 1
        if token.is_leaving:
            self._leave(token)
        elif token.busy == token.slots - 1:
            self._free.append(token)

    def grow(self, slots: int) -> list[Token]:
        """Always new processes: one that was told to leave does not come back."""
        new = [Process(self._unit) for _ in range(slots // self._unit)]
        self._replicas += new
        self.starting += self._unit * len(new)
        return list(new)

    def started(self, token: Token, /) -> None:
        assert isinstance(token, Process)
        if token.is_leaving:
            return
        token.is_ready = True
        self.starting -= token.slots
        self.ready += token.slots
        self._free.append(token)

    def shrink(self, slots: int) -> int:
        """Starting ones first, then the least busy, the newest of those first."""
        staying = [replica for replica in reversed(self._replicas) if not replica.is_leaving]
        leaving = sorted(staying, key=lambda replica: (replica.is_ready, replica.busy))[: slots // self._unit]
        for replica in leaving:
            self._retire(replica)
        return self._unit * len(leaving)

    def _retire(self, replica: Process) -> None:
        replica.is_leaving = True
        if not replica.is_ready:
            self.starting -= replica.slots
        else:
            self.ready -= replica.slots
        self.draining += replica.slots
        self._leave(replica)

    def _leave(self, replica: Process) -> None:
        if not replica.busy:
            self.draining -= replica.slots
            self._replicas.remove(replica)
