"""controller: heals replicas, and moves slots between groups, while the fleet runs."""

from __future__ import annotations

import argparse
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

from fleet.cli.output import Output, clock
from fleet.cli.target import fleet_of, no_names, output_flag, target_flags, target_of
from fleet.cli.view import heals_text, look_text
from fleet.errors import FleetError, UsageError

if TYPE_CHECKING:
    from fleet.operate.controller.look import Look
    from fleet.operate.controller.loop import Controller


NOTHING = "nothing to heal"


def controller_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    parser.add_argument("--once", action="store_true", help="look once, heal and move slots where needed, and end")
    parser.add_argument("--dry-run", action="store_true", help="with --once: say what would be healed, and do nothing")
    output_flag(parser)


def controller(args: argparse.Namespace, out: Output) -> int:
    """Look at the fleet again and again, heal it and move slots. One at a time: a second one is refused."""
    from fleet.operate.controller.loop import Controller

    target = target_of(args)
    no_names(target)
    fleet = fleet_of(target)
    if fleet.applied() is None:
        fleet.applied_manifest()  # raises UsageError where nothing was applied
    if args.dry_run:
        return _dry_run(Controller(fleet), once=args.once, name=fleet.name, out=out)
    with fleet.controller_lock():
        loop = Controller(fleet)
        try:
            if args.once:
                document = loop.tick().to_json()
                out.either({"fleet": fleet.name, **document}, look_text(document, colour=out.colour))
            else:
                _run(loop, out)
        finally:
            loop.close()
    return 0


def _dry_run(loop: Controller, *, once: bool, name: str, out: Output) -> int:
    """Beside the controller that runs: nothing is locked, written or begun."""
    if not once:
        raise UsageError("--dry-run needs --once", hint="`fleet events -f` shows what the controller does")
    try:
        heals = loop.heal(dry=True)
    finally:
        loop.close()
    out.either({"fleet": name, "heals": heals.to_json(), "note": heals.note}, heals_text(heals.to_json()) or NOTHING)
    return 0


def _run(loop: Controller, out: Output) -> None:
    """Look until INT or TERM; a look that has begun is finished."""
    over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    log = _Log(out)
    loop.run(is_over=over.is_set, wait=over.wait, on_look=log.on_look)


class _Log:
    """A line for each move, and for each note that is new: this is the controller's log."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._note = ""

    def on_look(self, look: Look | FleetError) -> None:
        """Print what one look found and changed."""
        if isinstance(look, FleetError):
            self._say(f"error: {look.message}" + (f" ({look.hint})" if look.hint else ""))
            return
        document = look.to_json()
        if self._out.is_json:
            self._out.line(document)
            return
        self._say(document["note"])
        if begun := [row for row in document["heals"] if row["verdict"] == "heal"]:
            for line in heals_text(begun).splitlines():
                self._out.facts(f"{clock()} {line}")
        if not document["steps"]:
            return
        for name, row in document["groups"].items():
            if row["asked"] != row["has"]:
                self._out.facts(f"{clock()} {name} {row['has']} -> {row['asked']} slots: {row['why']}")
        self._out.facts(f"{clock()}   {', '.join(document['steps'])}")

    def _say(self, note: str) -> None:
        if note and note != self._note:
            self._out.facts(f"{clock()} {note}")
        self._note = note
