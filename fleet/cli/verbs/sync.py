"""sync: a fleet that follows a git repository."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from fleet.cli.output import Cell, Output, table
from fleet.cli.target import duration, output_flag
from fleet.errors import UsageError

ACTIONS = {
    "run": "follow SOURCE until stopped; --once looks once",
    "status": "how far each revision got; without SOURCE, all sources in a line each",
    "check": "check SOURCE's own file; touches nothing",
    "now": "make the process that follows SOURCE look at the repository now",
    "suspend": "hands off until --for is over; needs --reason",
    "resume": "end a suspension",
    "approve": "apply the revision that waits, once, whatever the mode, the window or an earlier failure",
    "accept": "accept the rewritten history that the repository has now",
}
_EXIT_CODES = {"NotReady": 4, "RolledBack": 5, "RolloutFailed": 6, "LockHeld": 8, "Refused": 9}
_REFUSED = {"Fetched": 1, "Verified": 9, "Valid": 3}
_STYLES = {"True": "good", "False": "bad", "Unknown": "dim"}


def sync_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of sync."""
    actions = "\n".join(f"  {name:<8} {text}" for name, text in ACTIONS.items())
    parser.epilog = f"actions:\n{actions}"
    parser.add_argument("action", choices=tuple(ACTIONS), metavar="ACTION", help="what to do, see below")
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a FleetSource file, or the name of a known source")
    parser.add_argument("--once", action="store_true", help="run: look once, do what is to be done, and end")
    parser.add_argument("--adopt", action="store_true", help="run: take over a fleet that belongs to somebody else")
    parser.add_argument("--for", dest="length", type=duration, metavar="TIME", help="suspend: how long")
    parser.add_argument("--reason", metavar="TEXT", help="suspend: why; shown in status")
    output_flag(parser)


def sync(args: argparse.Namespace, out: Output) -> int:
    """One of the actions."""
    if args.action == "status" and not args.source:
        return _all(out)
    if not args.source:
        raise UsageError(f"fleet sync {args.action} needs a source", hint="name its file, or `fleet sync status`")
    code: int = {
        "run": _run,
        "status": _status,
        "check": _check,
        "now": _now,
        "suspend": _suspend,
        "resume": _resume,
        "approve": _approve,
        "accept": _accept,
    }[args.action](args, out)
    return code


# --- following


def _run(args: argparse.Namespace, out: Output) -> int:
    from fleet.cli.sync_progress import SyncProgress
    from fleet.operate.sync import overview
    from fleet.operate.sync.opening import is_file, opened, service
    from fleet.operate.sync.state import keep_definition

    definition, places = opened(args.source)
    with places.lock(), SyncProgress(out) as progress:
        if is_file(args.source):
            keep_definition(places, definition.folder / args.source.rpartition("/")[2])
        say = _Log(progress.say).line
        loops = service(definition, places, say=say, adopt=args.adopt, watcher=progress.watcher)
        caught: list[int] = []

        def end(number: int, _frame: FrameType | None) -> None:
            caught.append(number)
            loops.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        if not args.once:
            loops.run(interrupted=lambda: caught[0] if caught else 0)
            return 0
        loops.once(interrupted=lambda: caught[0] if caught else 0)
        document = overview.document(definition.source, places, now=time.time())
    out.either(document, _text(document, out))
    return _code(document)


class _Log:
    """Lines with the time, with its zone, on stderr."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def line(self, text: str) -> None:
        """One line, or a few that belong together."""
        self._say(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}")


def _code(document: dict[str, Any]) -> int:
    """What ``--once`` ends with: the first stage that says no."""
    for row in document["conditions"]:
        if row["status"] == "False":
            stage = row["type"]
            return _REFUSED[stage] if stage in _REFUSED else _EXIT_CODES.get(row["reason"], 1)
    return 0


# --- seeing


def _status(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.sync import overview
    from fleet.operate.sync.opening import opened

    definition, places = opened(args.source)
    document = overview.document(definition.source, places, now=time.time())
    out.either(document, _text(document, out))
    return 0


def _all(out: Output) -> int:
    from fleet import settings
    from fleet.errors import FleetError
    from fleet.operate.sync import overview
    from fleet.operate.sync.opening import opened
    from fleet.operate.sync.state import known_sources

    documents = []
    for name in known_sources(settings.load().home):
        try:
            definition, places = opened(name)
            documents.append(overview.document(definition.source, places, now=time.time()))
        except FleetError as error:
            out.say(f"{name}: {error.message}")
    rows = [
        [
            Cell(one["source"]),
            Cell(one["fleet"]),
            Cell(one["lastAppliedRevision"][:12]),
            Cell("yes" if one["ready"] else "no", "good" if one["ready"] else "bad"),
            Cell("yes" if one["running"] else "no"),
            Cell(one["follows"]),
        ]
        for one in documents
    ]
    head = ("SOURCE", "FLEET", "APPLIED", "READY", "FOLLOWED", "FOLLOWS")
    out.either({"sources": documents}, table(head, rows, colour=out.colour) if rows else "no sources")
    return 0


def _text(document: dict[str, Any], out: Output) -> str:
    applied, seen = document["lastAppliedRevision"][:12] or "nothing", document["lastSeenRevision"][:12] or "nothing"
    lines = [f"source {document['source']}, fleet {document['fleet'] or 'not known yet'}, apply {document['apply']}"]
    lines.append(f"follows {document['follows']}: seen {seen}, applied {applied}")
    if document["suspended"]:
        lines.append(document["suspended"])
    if not document["running"]:
        lines.append("nobody follows it now: fleet sync run")
    rows = []
    for row in document["conditions"]:
        first, *_ = row["message"].splitlines() or [""]
        status = Cell(row["status"], _STYLES[row["status"]])
        rows.append([Cell(row["type"]), status, Cell(row["reason"]), Cell(row["revision"][:12]), Cell(first)])
    lines += ["", table(("STAGE", "STATUS", "REASON", "REVISION", "MESSAGE"), rows, colour=out.colour)]
    for row in document["conditions"]:
        if "\n" in row["message"]:
            lines += ["", f"{row['type']}:", *(f"  {line}" for line in row["message"].splitlines())]
    return "\n".join(lines)


def _check(args: argparse.Namespace, out: Output) -> int:
    from pathlib import Path

    from fleet.operate.sync.opening import read

    source = read(Path(args.source)).source
    text = f"{args.source}: source {source.name}, {source.spec.git.url}, no problems"
    out.either({"valid": True, "source": source.name}, text)
    return 0


# --- ordering


def _now(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.sync.opening import opened
    from fleet.state.lock import is_held

    _, places = opened(args.source)
    if not is_held(places.lock_file):
        raise UsageError(f"nobody follows {places.name!r} now", hint=f"fleet sync run {args.source} --once")
    places.nudge.touch()
    out.say(f"{places.name}: asked for a look")
    return 0


def _suspend(args: argparse.Namespace, out: Output) -> int:
    if not args.length or not args.reason:
        raise UsageError("a suspension has an end and a reason", hint="fleet sync suspend SOURCE --for 1h --reason …")
    from fleet.operate.sync.opening import opened
    from fleet.operate.sync.orders import suspend

    _, places = opened(args.source)
    until = suspend(places, seconds=args.length, reason=args.reason, now=time.time())
    out.say(f"{places.name}: suspended until {until}")
    return 0


def _resume(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.sync.opening import opened
    from fleet.operate.sync.orders import resume

    definition, places = opened(args.source)
    resume(places)
    said = definition.source.spec.suspend
    if said is not None:
        out.say(f"note: the source's own file suspends it until {said.until}")
    out.say(f"{places.name}: resumed")
    return 0


def _approve(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.sync.opening import opened
    from fleet.operate.sync.orders import approve
    from fleet.operate.sync.state import read_fetched

    _, places = opened(args.source)
    waiting = read_fetched(places).good
    if not waiting:
        raise UsageError(f"{places.name}: no revision waits", hint=f"see `fleet sync status {places.name}`")
    approve(places, waiting)
    out.say(f"{places.name}: {waiting[:12]} is approved")
    return 0


def _accept(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.sync.opening import opened
    from fleet.operate.sync.orders import accept
    from fleet.operate.sync.state import read_fetched

    _, places = opened(args.source)
    seen = read_fetched(places).seen
    if not seen:
        raise UsageError(f"{places.name}: nothing was seen yet", hint=f"see `fleet sync status {places.name}`")
    accept(places, seen)
    out.say(f"{places.name}: the history that leads to {seen[:12]} is accepted")
    return 0
