"""logs: the logs of all replicas as one."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence

from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.output import Output, group_colour, painted
from fleet.cli.target import applied_or_told, fleet_of, stream_flags, target_flags, target_of
from fleet.core.desired import group_of
from fleet.core.text.format import one_line
from fleet.core.text.suggest import did_you_mean
from fleet.errors import UsageError
from fleet.state import logs as log_files

LINES = 50


def logs_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser, names="groups or replicas")
    place_flags(parser)
    stream_flags(parser, lines=LINES)


def logs(args: argparse.Namespace, out: Output) -> int:
    """The logs of all replicas, or of those that are named, as one."""
    target = target_of(args)
    if (there := in_cluster(args, target)) is not None:
        from fleet.cli import cluster_logs

        return cluster_logs.logs(there, args, out)
    fleet = fleet_of(target)
    folder = fleet.places.log
    known = log_files.files(folder)
    chosen = log_files.chosen(list(known), target.names)
    applied = applied_or_told(fleet, out)
    _check_names(target.names, list(known), groups=applied.desired.groups if applied is not None else ())
    picked = {name: known[name] for name in chosen}
    sizes = log_files.sizes(picked)
    width = max(map(len, chosen), default=0)
    last = args.lines if args.lines is not None else None if args.since else LINES
    for line in log_files.merged(picked, since=args.since or 0.0, last=last, until=sizes if args.follow else None):
        _print_line(line, width, out)
    if args.follow:
        for line in log_files.follow(folder, target.names, from_sizes=sizes):
            _print_line(line, width, out)
    return 0


def _check_names(names: Sequence[str], known: Sequence[str], *, groups: Collection[str]) -> None:
    """Raise UsageError for a name without a log, unless it is a group that has written nothing yet."""
    for name in names:
        if not log_files.chosen(known, [name]) and name not in groups:
            every = sorted({*groups, *(group_of(one) for one in known)})
            hint = did_you_mean(name, [*every, *known]) or "there are none"
            raise UsageError(f"there is no log of {name!r}", hint=hint)


def _print_line(line: log_files.Line, width: int, out: Output) -> None:
    if out.is_json:
        out.line({"replica": line.replica, "at": line.at or None, "line": line.text})
        return
    style = group_colour(group_of(line.replica))
    text = one_line(line.text, most=len(line.text) + 1)
    out.facts(f"{painted(f'{line.replica:<{width}}', style, colour=out.colour)} | {text}")
