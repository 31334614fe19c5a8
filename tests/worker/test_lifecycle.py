"""Every cell of the lifecycle table."""

from __future__ import annotations

import pytest

from fleet.replica.record import _STATES
from fleet.worker.lifecycle import MOVES, RECORD_STATES, Action, Event, Lifecycle, State, cell

STAY = Action.NOTHING

# Rows are states, columns are events, in the order of the enums; "." means: stay and do nothing.
WALK = """
              connected      hold             resume         term            quit      deadline  empty
starting      ready/announce held/hand back   .              draining/drain  cold/cut  .         .
ready         .              held/hand back   .              draining/drain  cold/cut  .         .
held          .              .                ready/announce draining/drain  cold/cut  .         .
draining      .              .                .              cold/cut        cold/cut  cold/cut  stopped/leave
cold          .              .                .              .               .         .         stopped/leave
stopped       .              .                .              .               .         .         .
"""


def _cells() -> list[tuple[State, Event, State, Action]]:
    head, *rows = WALK.strip().replace("hand back", "hand_back").splitlines()
    events = [Event(word) for word in head.split()]
    found = []
    for row in rows:
        name, *cells = row.split()
        state = State(name)
        for event, text in zip(events, cells, strict=True):
            target, _, action = text.partition("/")
            wanted = (state, STAY) if text == "." else (State(target), Action(action.replace("_", " ")))
            found.append((state, event, *wanted))
    return found


@pytest.mark.parametrize(("state", "event", "target", "action"), _cells())
def test_every_cell(state: State, event: Event, target: State, action: Action) -> None:
    life = Lifecycle()
    life.state = state
    assert life.on_event(event) is action
    assert life.state is target


def test_the_walk_covers_the_whole_table() -> None:
    assert {(state, event) for state, event, _, _ in _cells()} == {(s, e) for s in State for e in Event}
    assert all(cell(*where) == move for where, move in MOVES.items())


def test_no_way_leads_back_from_leaving() -> None:
    for state in (State.DRAINING, State.COLD, State.STOPPED):
        for event in Event:
            life = Lifecycle()
            life.state = state
            life.on_event(event)
            assert life.leaving
            assert not life.takes_work


def test_every_state_has_a_word_in_the_record() -> None:
    assert set(RECORD_STATES) == set(State)
    assert set(RECORD_STATES.values()) <= set(_STATES)
