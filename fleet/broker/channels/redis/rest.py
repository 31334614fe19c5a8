"""When a replica for which nothing comes lets the server tell of what comes, instead of asking again and again."""

from __future__ import annotations

import time

from fleet.broker.channels.base import QUIET_SECONDS

POLL_SECONDS = 0.5
TURN_SECONDS = 60.0
"""So often the queues are looked at in any case."""


class Rest:
    """Follows one replica between its fetches. ``watches``: whether the server is to tell (of ``Inboxes``)."""

    def __init__(self) -> None:
        self._turn_by = 0.0
        self._due_at: float | None = None
        self._is_empty = False
        self.end()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come for a while."""
        return time.monotonic() - self._stirred_at >= QUIET_SECONDS

    def end(self) -> None:
        """Something has come, or the connection is new: ask again and again for a while."""
        self._watched = self._is_empty = False
        self._stirred_at = self._asked_at = time.monotonic()

    def needs_turn(self, *, watches: bool) -> bool:
        """Whether a turn could bring something that the server has not told of."""
        return not self.is_told(watches=watches) or time.monotonic() >= self._turn_by

    def is_told(self, *, watches: bool) -> bool:
        """Whether nothing waits and the server tells of whatever comes."""
        return watches and self._watched and self._is_empty

    def stop(self) -> None:
        """Nobody waits at the queues any more: what comes now is not told."""
        self._is_empty = False

    def is_to_watch(self, *, watches: bool) -> bool:
        """A turn brought nothing: whether the server is to tell from now on."""
        if self._watched and not watches:  # it has told
            self.end()
        self._is_empty = True
        now = time.monotonic()
        if watches or now - max(self._stirred_at, self._asked_at) < QUIET_SECONDS:
            return False
        self._asked_at = now  # where it cannot tell, it is asked for that again after as long
        return True

    def on_turn(self, *, watches: bool, due_seconds: float | None) -> None:
        """A turn was made. due_seconds: until the first message with a date; None: there is none."""
        now = time.monotonic()
        self._watched = watches
        self._due_at = None if due_seconds is None else now + due_seconds
        self._turn_by = now + (TURN_SECONDS if due_seconds is None else min(TURN_SECONDS, due_seconds))

    @property
    def poll_seconds(self) -> float | None:
        """Until the next turn in any case; None: until the server tells."""
        until_due = None if self._due_at is None else max(0.0, self._due_at - time.monotonic())
        if self._watched:
            return until_due
        return POLL_SECONDS if until_due is None else min(POLL_SECONDS, until_due)
