"""A watch over progress: messages wait, slots are free, and yet nothing comes. Then a new connection is made.

A worker that looks healthy and consumes nothing would never be restarted. So the broker is
asked what waits when a worker that wants work has got none for a while. Messages twice in a row: the connection is
rebuilt. Still none after that: one plain fetch decides. What it brings should have come by itself, so the process is at
fault and is replaced. When it brings nothing, the broker withholds the messages (a single active consumer elsewhere, an
exclusive queue, an ordering guarantee), which no other process would change: that is logged once and retried later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Protocol

from fleet.broker.channels.base import Channel, ChannelLost
from fleet.worker.task.job import Job

log = logging.getLogger("fleet.worker")

PATIENCE_SECONDS = 30.0
REST_SECONDS = 600.0


class Step(Enum):
    """What to do now."""

    NOTHING = auto()
    ASK = auto()
    """Ask the broker how many messages wait; tell :meth:`StallWatch.waits`."""
    REBUILD = auto()
    PROBE = auto()
    """Fetch one message, past the loop; tell :meth:`StallWatch.probed`."""
    REPLACE = auto()
    REST = auto()


class StallWatch:
    """Decides, from what it is told. Times are monotonic seconds."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.patience_seconds = patience_seconds
        self._got_at = 0.0
        self._since: float | None = None
        self._seen_waiting = False
        self._rebuilt = False
        self._rest_until = 0.0

    @property
    def due_at(self) -> float | None:
        """When the broker is to be asked, if nothing comes before (monotonic); None where nothing is wanted."""
        return None if self._since is None else self._since + self.patience_seconds

    def look(self, now: float, *, wants: bool, got_at: float) -> Step:
        """Once a second. wants: it would start a message now.  got_at: when a fetch last brought something."""
        if got_at != self._got_at:
            self._got_at = got_at
            self._rebuilt = False
            self._rest_until = 0.0
            self._since = None
        if not wants or now < self._rest_until:
            self._since = None
        if self._since is None:
            self._since = now
            self._seen_waiting = False
        return Step.ASK if now - self._since >= self.patience_seconds else Step.NOTHING

    def waits(self, now: float, backlog: int | None, *, may_rebuild: bool = True) -> Step:
        """The broker's answer to ASK. Only messages twice in a row, half the patience apart, are acted on.

        may_rebuild: no running task would lose its message by a new connection; else the fetch decides at once.
        """
        seen, self._seen_waiting = self._seen_waiting, bool(backlog)
        self._since = now - self.patience_seconds / 2 if backlog else now
        if not (backlog and seen):
            return Step.NOTHING
        self._since = None
        if self._rebuilt or not may_rebuild:
            return Step.PROBE
        self._rebuilt = True
        return Step.REBUILD

    def probed(self, now: float, *, found: bool) -> Step:
        """What the plain fetch brought."""
        self._rebuilt = False
        if found:
            return Step.REPLACE
        self._rest_until = now + REST_SECONDS
        return Step.REST


class Wanting(Protocol):
    """A worker's fetching, as the watchdog sees it."""

    @property
    def wants(self) -> bool:
        """Whether a message that came now would start now."""
        ...

    @property
    def got_at(self) -> float:
        """When a fetch last brought something (monotonic)."""
        ...


class StallWatchdog:
    """Asks and acts for one worker: called by its loop once a second."""

    def __init__(
        self,
        fetching: Wanting,
        channel: Channel,
        *,
        running: Iterable[Job],
        rebuild: Callable[[str], object],
        replace: Callable[[str], object],
        patience_seconds: float,
    ) -> None:
        """running: a view of the jobs that run.  rebuild, replace: make a new connection or process, and say why.
        patience_seconds: when nothing has come for so long, it asks."""
        self._fetching = fetching
        self._channel = channel
        self._running = running
        self._rebuild = rebuild
        self._replace = replace
        self._watch = StallWatch(patience_seconds)
        self._waiting = 0

    @property
    def due_at(self) -> float | None:
        """By when it is to look again (monotonic). A worker at rest looks anyway now and then: mostly that will do."""
        due = self._watch.due_at
        return None if due is None else due + self._watch.patience_seconds / 2

    def __call__(self, now: float) -> None:
        """Look, and ask, rebuild, fetch or replace as needed."""
        step = self._watch.look(now, wants=self._fetching.wants, got_at=self._fetching.got_at)
        if step is not Step.ASK:
            return
        try:
            self._waiting = self._channel.backlog() or 0
            unacknowledged = any(not job.acked for job in self._running)
            self._act(self._watch.waits(now, self._waiting, may_rebuild=not unacknowledged), now)
        except ChannelLost as error:
            self._rebuild(f"no answer about the queues: {error.__cause__ or error}")

    def _act(self, step: Step, now: float) -> None:
        idle = f"{self._waiting} messages wait, slots are free, and nothing came"
        if step is Step.REBUILD:
            self._rebuild(f"{idle} for {now - self._fetching.got_at:.0f} s")
        elif step is Step.PROBE:
            self._act(self._watch.probed(now, found=self._probe()), now)
        elif step is Step.REPLACE:
            self._replace(f"{idle} by itself, but a plain fetch brings one")
        elif step is Step.REST:
            log.warning(
                "%s, nor by a plain fetch: the broker keeps them for somebody else (a single active consumer,"
                " an exclusive queue?); looking again in %.0f s",
                idle,
                REST_SECONDS,
            )

    def _probe(self) -> bool:
        found = self._channel.fetch(1)
        self._channel.give_back(found)
        return bool(found)
