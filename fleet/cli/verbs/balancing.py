"""controller, and explain --live: slots that move while the fleet runs."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

from fleet.cli.output import Cell, Output, table
from fleet.cli.target import no_names, output_flag, session_of, target_flags, target_of
from fleet.core.wording import duration
from fleet.errors import FleetError
from fleet.session import Session

_FRESH_TICKS = 3.0
_FRESH_SECONDS = 5.0
_HEAD = ("GROUP", "HAS", "NEED", "WANTS", "SHARE", "GETS", "QUEUE", "OLDEST", "WHY")


def controller_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of controller."""
    target_flags(parser)
    parser.add_argument("--once", action="store_true", help="look once, move what is to be moved, and end")
    output_flag(parser)


def controller(args: argparse.Namespace, out: Output) -> int:
    """Look at the fleet again and again, and move slots. One at a time: a second one is refused."""
    from fleet.controller import Controller

    target = target_of(args)
    no_names(target)
    session = session_of(target)
    if session.standing() is None:
        session.last_applied()  # says that there is nothing to look at
    with session.controller_lock():
        loop = Controller(session)
        try:
            if args.once:
                document = loop.tick().to_json()
                out.either({"fleet": session.name, **document}, _text(document, out))
            else:
                _run(loop, out)
        finally:
            loop.close()
    return 0


def _run(loop: Any, out: Output) -> None:
    """Until INT or TERM; the look under way is finished."""
    over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    teller = _Teller(out)
    loop.run(is_over=over.is_set, wait=over.wait, tell=teller.tell)


class _Teller:
    """A line for each move, and for each note that is new: this is the controller's log."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._note = ""

    def tell(self, look: Any) -> None:
        """What one look brought."""
        if isinstance(look, FleetError):
            self._say(f"error: {look.message}" + (f" ({look.hint})" if look.hint else ""))
            return
        document = look.to_json()
        if self._out.is_json:
            self._out.line(document)
            return
        self._say(document["note"])
        if not document["steps"]:
            return
        for name, row in document["groups"].items():
            if row["asked"] != row["has"]:
                self._out.facts(f"{_clock()} {name} {row['has']} -> {row['asked']} slots: {row['why']}")
        self._out.facts(f"{_clock()}   {', '.join(document['steps'])}")

    def _say(self, note: str) -> None:
        if note and note != self._note:
            self._out.facts(f"{_clock()} {note}")
        self._note = note


def _clock() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def explain_live(session: Session, out: Output) -> int:
    """What the controller saw and decided last; where it does not run, what it would decide now."""
    document = _last(session)
    note = ""
    if document is None:
        document = _would_be(session)
        note = "the controller does not run: this is what it would decide now"
    if out.is_json:
        out.document({"fleet": session.name, "running": not note, **document})
        return 0
    for line in (note, document["note"]):
        if line:
            out.say(f"note: {line}")
    out.facts(_text(document, out))
    return 0


def _last(session: Session) -> dict[str, Any] | None:
    from fleet.controller import last_look

    standing, document = session.standing(), last_look(session)
    if document is None or standing is None or standing.down:
        return None
    age = session.now() - float(document["at"])
    return document if age < _FRESH_TICKS * float(document["tickSeconds"]) + _FRESH_SECONDS else None


def _would_be(session: Session) -> dict[str, Any]:
    from fleet.controller import Controller, Look

    loop = Controller(session)
    try:
        seen = loop.look()
        return (seen if isinstance(seen, Look) else seen.look).to_json()
    finally:
        loop.close()


def _text(document: Mapping[str, Any], out: Output) -> str:
    groups: Mapping[str, Mapping[str, Any]] = document["groups"]
    if not groups:
        return document["note"] or "nothing moves"
    rows = [[Cell(text) for text in _row(name, row)] for name, row in groups.items()]
    has = sum(row["has"] + row["draining"] + row["parked"] for row in groups.values())
    squeezed = "; somebody is short: needs come before wants" if document["squeezed"] else ""
    sums = f"budget {document['budget']} slots for the groups that move, {has} in use{squeezed}"
    return f"{table(_HEAD, rows, colour=out.colour)}\n\n{sums}"


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (row[key] for key in ("has", "need", "wants", "share", "gets"))
    queue = "?" if row["queue"] is None else str(row["queue"])
    return (name, *map(str, numbers), queue, _age(row), row["why"])


def _age(row: Mapping[str, Any]) -> str:
    """An estimate says so."""
    if row["oldestAge"] is None:
        return "-" if not row["queue"] else "?"
    return ("~" if row["ageEstimated"] else "") + duration(round(row["oldestAge"], 1))
