"""logs, history, events: what was."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fleet import logs as log_files
from fleet.cli.output import REPLICA_COLOURS, Cell, Output, painted, table
from fleet.cli.parser import did_you_mean
from fleet.cli.target import no_names, output_flag, session_of, since, target_flags, target_of
from fleet.errors import UsageError
from fleet.history import Revision
from fleet.overrides import moment

LINES = 50


def _stream_flags(parser: argparse.ArgumentParser, *, lines: int | None) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on as there is more")
    parser.add_argument("--since", type=since, metavar="TIME", help="not older, like 10m or 2026-11-21T05:00")
    default = f"default {lines}" if lines else "default: all"
    parser.add_argument("-n", "--lines", type=_count, metavar="N", help=f"at most the last N ({default})")
    output_flag(parser)


def _count(text: str) -> int:
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number: {text!r}")


def logs_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of logs."""
    target_flags(parser, names="groups or replicas")
    _stream_flags(parser, lines=LINES)


def logs(args: argparse.Namespace, out: Output) -> int:
    """The logs of all replicas, or of those that are named, as one."""
    target = target_of(args)
    session = session_of(target)
    folder = session.places.log
    known = log_files.files(folder)
    chosen = log_files.chosen(list(known), target.names)
    standing = session.standing()
    _check_names(target.names, list(known), groups=standing.desired.groups if standing is not None else ())
    picked = {name: known[name] for name in chosen}
    sizes = log_files.sizes(picked)
    width = max(map(len, chosen), default=0)
    last = args.lines if args.lines is not None else None if args.since else LINES
    for line in log_files.merged(picked, since=args.since or 0.0, last=last):
        _print_line(line, width, out)
    if args.follow:
        for line in log_files.follow(folder, target.names, from_sizes=sizes):
            _print_line(line, width, out)
    return 0


def _check_names(names: Sequence[str], known: Sequence[str], *, groups: Collection[str]) -> None:
    """A group that has not written anything yet is known all the same."""
    for name in names:
        if not log_files.chosen(known, [name]) and name not in groups:
            every = sorted({*groups, *(one.rpartition(".")[0] for one in known)})
            raise UsageError(f"there is no log of {name!r}", hint=did_you_mean(name, [*every, *known]))


def _print_line(line: log_files.Line, width: int, out: Output) -> None:
    if out.is_json:
        out.line({"replica": line.replica, "at": line.at or None, "line": line.text})
        return
    style = REPLICA_COLOURS[sum(line.replica.encode()) % len(REPLICA_COLOURS)]
    out.facts(f"{painted(f'{line.replica:<{width}}', style, colour=out.colour)} | {line.text}")


def history_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of history."""
    target_flags(parser)
    output_flag(parser)


def history(args: argparse.Namespace, out: Output) -> int:
    """The revisions that are kept."""
    target = target_of(args)
    no_names(target)
    session = session_of(target)
    standing = session.standing()
    current = standing.revision if standing is not None else 0
    revisions = session.history.all()
    documents = [_revision_document(one, current=one.number == current) for one in revisions]
    rows = [_revision_row(one, current=one.number == current) for one in revisions]
    text = table(("REVISION", "APPLIED", "BY", "GIT", "MESSAGE"), rows, colour=out.colour)
    out.either({"fleet": session.name, "revisions": documents}, text if rows else "nothing was applied yet")
    return 0


def _revision_document(revision: Revision, *, current: bool) -> dict[str, Any]:
    return {
        "revision": revision.number,
        "current": current,
        "at": revision.at,
        "by": revision.by,
        "digest": revision.digest,
        "message": revision.message,
        "git": dict(revision.origin.git),
        "sources": list(revision.origin.sources),
    }


def _revision_row(revision: Revision, *, current: bool) -> list[Cell]:
    git = revision.origin.git
    commit = " ".join(word for word in (git.get("sha", "")[:10], git.get("branch", "")) if word)
    return [
        Cell(f"{revision.number}{' *' if current else ''}", "good" if current else ""),
        Cell(moment(revision.at)),
        Cell(revision.by),
        Cell(commit),
        Cell(revision.message or ", ".join(revision.origin.sources)),
    ]


def events_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of events."""
    target_flags(parser)
    _stream_flags(parser, lines=None)


def events(args: argparse.Namespace, out: Output) -> int:
    """The audit, oldest first."""
    target = target_of(args)
    no_names(target)
    audit = session_of(target).audit
    for entry in audit.read(since=args.since or 0.0, last=args.lines):
        _print_entry(entry, out)
    if args.follow:
        for entry in audit.follow():
            _print_entry(entry, out)
    return 0


def _print_entry(entry: Mapping[str, Any], out: Output) -> None:
    if out.is_json:
        out.line(entry)
        return
    what = str(entry.get("event", ""))
    bad = what.endswith("failed") or entry.get("outcome") in {"failed", "not ready"}
    words = [moment(entry["at"]), f"{entry.get('by', '')}[{entry.get('pid', '')}]"]
    out.facts("  ".join([*words, painted(f"{what:<16}", "bad" if bad else "", colour=out.colour), _details(entry)]))


def _move(group: str, one: Mapping[str, Any]) -> str:
    return f"{group} {one['from']} -> {one['to']} slots: {one['why']}"


def _details(entry: Mapping[str, Any]) -> str:
    if "step" in entry:
        return f"{entry['step']}: {entry.get('reason', '')}"
    if "override" in entry:
        return str(entry["override"])
    if "moves" in entry:
        return "; ".join(_move(name, one) for name, one in entry["moves"].items())
    words = [f"revision {entry['revision']}"] if entry.get("revision") else []
    if "summary" in entry:
        words += [f"{count} to {action}" for action, count in entry["summary"].items() if action != "keep"]
    if "outcome" in entry:
        words += [f"{entry['outcome']}, {entry.get('done', 0)} of {entry.get('of', 0)} steps"]
    return ", ".join([*words, *([str(entry["reason"]).splitlines()[0]] if entry.get("reason") else [])])
