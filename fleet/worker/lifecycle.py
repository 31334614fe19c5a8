"""The states of a worker as one table: state x event -> next state and action.

    STARTING ──connected──▶ READY ◀──resume/hold──▶ HELD
        └──────────── term ────┴──────── term ───────┴──▶ DRAINING ──empty──▶ STOPPED
                     (term again, quit, deadline)  ──▶    COLD     ──empty──▶ STOPPED

The table decides and touches nothing; the consumer carries the action out. A hold is revocable, a drain is not: a
supervisor that sent TERM waits for the process to end.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """State of a worker. The value is the word in its record."""

    STARTING = "starting"
    READY = "ready"
    HELD = "held"
    DRAINING = "draining"
    COLD = "cold"
    STOPPED = "stopped"


class Event(Enum):
    """What can happen to a worker."""

    CONNECTED = "connected"
    HOLD = "hold"
    RESUME = "resume"
    TERM = "term"
    QUIT = "quit"
    DEADLINE = "deadline"
    EMPTY = "empty"


class Action(Enum):
    """What the consumer does on the way into the next state."""

    NOTHING = "nothing"
    ANNOUNCE = "announce"
    """Announce that this worker consumes now."""
    HAND_BACK = "hand back"
    """Stop fetching; what has not started goes back to its queue; what runs goes on."""
    DRAIN = "drain"
    """As HAND_BACK, with a deadline, and leave when the last task is done."""
    CUT = "cut"
    """What runs is ended and goes back to its queue, at once."""
    LEAVE = "leave"
    """Close everything and exit."""


Cell = tuple[State, Action]

MOVES: dict[tuple[State, Event], Cell] = {
    (State.STARTING, Event.CONNECTED): (State.READY, Action.ANNOUNCE),
    (State.STARTING, Event.HOLD): (State.HELD, Action.HAND_BACK),
    (State.STARTING, Event.TERM): (State.DRAINING, Action.DRAIN),
    (State.STARTING, Event.QUIT): (State.COLD, Action.CUT),
    (State.READY, Event.HOLD): (State.HELD, Action.HAND_BACK),
    (State.READY, Event.TERM): (State.DRAINING, Action.DRAIN),
    (State.READY, Event.QUIT): (State.COLD, Action.CUT),
    (State.HELD, Event.RESUME): (State.READY, Action.ANNOUNCE),
    (State.HELD, Event.TERM): (State.DRAINING, Action.DRAIN),
    (State.HELD, Event.QUIT): (State.COLD, Action.CUT),
    (State.DRAINING, Event.TERM): (State.COLD, Action.CUT),
    (State.DRAINING, Event.QUIT): (State.COLD, Action.CUT),
    (State.DRAINING, Event.DEADLINE): (State.COLD, Action.CUT),
    (State.DRAINING, Event.EMPTY): (State.STOPPED, Action.LEAVE),
    (State.COLD, Event.EMPTY): (State.STOPPED, Action.LEAVE),
}
"""Every cell in which something happens; in all others the worker stays as it is."""


def cell(state: State, event: Event) -> Cell:
    """The whole table, one cell at a time."""
    return MOVES.get((state, event), (state, Action.NOTHING))


RECORD_STATES = {
    State.STARTING: "starting",
    State.READY: "ready",
    State.HELD: "draining",
    State.DRAINING: "draining",
    State.COLD: "draining",
    State.STOPPED: "stopped",
}
"""The word in the record: a held and a stopping worker both take no work."""

EXIT_DONE = 0
"""Stopped as asked, warm or cold; tasks that were cut are in their queues again."""
EXIT_FAILED = 1
"""Could not start: the app cannot be imported, or the options are wrong."""
EXIT_REPLACE = 75
"""The process ended itself (a solo task exceeded its hard time limit) and is to be started again."""


class Lifecycle:
    """State of this worker. ``on_event`` changes it and returns what is to be done."""

    def __init__(self) -> None:
        self.state = State.STARTING

    def on_event(self, event: Event) -> Action:
        """Change the state; returns what the consumer must do."""
        self.state, action = cell(self.state, event)
        return action

    @property
    def takes_work(self) -> bool:
        """Whether new tasks may be fetched and started."""
        return self.state is State.READY

    @property
    def leaving(self) -> bool:
        """Whether the process drains or stops."""
        return self.state in (State.DRAINING, State.COLD, State.STOPPED)

    @property
    def stopped(self) -> bool:
        """Whether there is nothing more to do."""
        return self.state is State.STOPPED
