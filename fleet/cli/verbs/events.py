"""events: what happened, by whom and why."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from fleet.cli.output import Output, group_colour, painted
from fleet.cli.target import fleet_of, no_names, stream_flags, target_flags, target_of
from fleet.core.desired import group_of
from fleet.core.text.format import one_line
from fleet.state.overrides import moment


def events_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    stream_flags(parser, lines=None)


def events(args: argparse.Namespace, out: Output) -> int:
    """The audit, oldest first."""
    target = target_of(args)
    no_names(target)
    audit = fleet_of(target).audit
    since = args.since or 0.0
    for entry in audit.entries(since=since) if args.lines is None else audit.read(since=since, last=args.lines):
        _print_entry(entry, out)
    if count := audit.unreadable():
        out.say(f"warning: {count} {'line' if count == 1 else 'lines'} of {audit.path} are damaged and left out")
    if args.follow:
        for entry in audit.follow():
            _print_entry(entry, out)
    return 0


def _print_entry(entry: Mapping[str, Any], out: Output) -> None:
    if out.is_json:
        out.line(entry)
        return
    what = str(entry.get("event", ""))
    bad = what.endswith(("failed", "crashed", "parked")) or entry.get("outcome") in {"failed", "not ready"}
    words = [moment(entry["at"]), one_line(f"{entry.get('by', '')}[{entry.get('pid', '')}]")]
    out.facts(
        "  ".join(
            [
                *words,
                painted(f"{one_line(what):<16}", "bad" if bad else "", colour=out.colour),
                painted(one_line(_details(entry)), _group_style(entry), colour=out.colour),
            ]
        )
    )


def _group_style(entry: Mapping[str, Any]) -> str:
    """The colour of the group that an entry is about; none for the whole fleet, or several groups."""
    if "replica" in entry:
        return group_colour(group_of(str(entry["replica"])))
    moves = entry.get("moves")
    return group_colour(str(next(iter(moves)))) if isinstance(moves, dict) and len(moves) == 1 else ""


def _move(group: str, one: Mapping[str, Any]) -> str:
    return f"{group} {one['from']} -> {one['to']} slots: {one['why']}"


def _details(entry: Mapping[str, Any]) -> str:
    if "step" in entry:
        return f"{entry['step']}: {entry.get('reason', '')}"
    if "override" in entry:
        return str(entry["override"])
    if replica := entry.get("replica"):
        return f"{replica}: {entry.get('reason', '')}"
    if "moves" in entry:
        return "; ".join(_move(name, one) for name, one in entry["moves"].items())
    words = [f"revision {entry['revision']}"] if entry.get("revision") else []
    if "summary" in entry:
        words += [f"{count} to {action}" for action, count in entry["summary"].items() if action != "keep"]
    if "outcome" in entry:
        words += [f"{entry['outcome']}, {entry.get('done', 0)} of {entry.get('of', 0)} steps"]
    return ", ".join([*words, *([str(entry["reason"]).splitlines()[0]] if entry.get("reason") else [])])
