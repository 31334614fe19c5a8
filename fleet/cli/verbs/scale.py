"""scale: change a replica count, in the manifest or as a live exception to it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fleet.authoring.edit import edit_replicas
from fleet.cli.change_flow import ChangeFlags, change_flags, destroy_flag, owner_flags, run_change
from fleet.cli.cluster_target import ClusterTarget, in_cluster, ownership_flag, place_flags
from fleet.cli.output import Output
from fleet.cli.override_flow import refuse_down
from fleet.cli.target import Target, checked_names, duration, fleet_for, fleet_of, output_flag, target_flags, target_of
from fleet.core.manifest.tree import Source
from fleet.core.planning.selection import sharing
from fleet.errors import UsageError
from fleet.inputs.facts import resolved
from fleet.inputs.manifest import from_sources, read_sources
from fleet.operate.local_fleet import LocalFleet, PlannedChange
from fleet.state.audit import who
from fleet.state.files import STDIN, rewrite
from fleet.state.overrides import Kind, Override, added, ended


def scale_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser, names="GROUP=N: the wanted count", required=True)
    place_flags(parser)
    parser.add_argument("--live", action="store_true", help="leave the manifest alone and override it")
    parser.add_argument("--for", dest="lasting", type=duration, metavar="TIME", help="how long a --live override lasts")
    destroy_flag(parser)
    owner_flags(parser)
    ownership_flag(parser)
    change_flags(parser)
    output_flag(parser)


def scale(args: argparse.Namespace, out: Output) -> int:
    """Edit and apply, or override and apply."""
    target = target_of(args)
    counts = _counts(target.names)
    if args.lasting is not None and not args.live:
        raise UsageError("--for needs --live", hint="a count in the manifest has no end")
    if (there := in_cluster(args, target)) is not None:
        return _in_cluster(there, target, counts, args, out)
    if args.live:
        fleet = fleet_of(target)
        refuse_down(fleet)
        return _live(fleet, counts, args, out)
    return _edit(target, counts, args, out)


def _in_cluster(
    there: ClusterTarget, target: Target, counts: Mapping[str, int], args: argparse.Namespace, out: Output
) -> int:
    from fleet.cli import cluster_flow

    if args.live:
        return cluster_flow.scale_live(there, counts, args, out)
    if not target.sources():
        raise UsageError("no manifest to edit", hint="name the manifest, or use --live")
    before = read_sources(_files(target))
    texts = edit_replicas(before, counts)
    loaded = from_sources([Source(source.name, texts.get(source.name, source.text)) for source in before])

    def write() -> None:
        _write_manifest(before, texts, out)

    return cluster_flow.change(there.fleet, lambda: there.fleet.planned(loaded), args, out, before=write)


def _write_manifest(before: Sequence[Source], texts: Mapping[str, str], out: Output) -> None:
    if read_sources([source.name for source in before]) != list(before):
        raise UsageError("the manifest was changed meanwhile", hint="run the command again")
    for source in before:
        if source.name in texts:
            was = source.text.encode() if isinstance(source.text, str) else source.text
            rewrite(Path(source.name), texts[source.name], was=was)
            out.say(f"edited {source.name}")


def _counts(words: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        group, sign, number = word.partition("=")
        if not sign or not group or not number.isdigit():
            raise UsageError(f"{word!r} is not GROUP=N", hint="like `fleet scale thumbs=12`")
        if group in counts:
            raise UsageError(f"{group} is here twice: {group}={counts[group]} and {word}", hint="give one count")
        counts[group] = int(number)
    if not counts:
        raise UsageError("no group to scale", hint="like `fleet scale thumbs=12`")
    return counts


def _edit(target: Target, counts: Mapping[str, int], args: argparse.Namespace, out: Output) -> int:
    before = read_sources(_files(target))
    texts = edit_replicas(before, counts)
    loaded = from_sources([Source(source.name, texts.get(source.name, source.text)) for source in before])
    fleet = fleet_for(loaded)
    refuse_down(fleet)

    def look() -> PlannedChange:
        overrides = ended(fleet.kept_overrides(), counts.keys(), kinds=frozenset[Kind]({"replicas"}))
        pinned = resolved(loaded)
        desired, secrets = fleet.desired_of(pinned, overrides=overrides)

        def write() -> None:
            _write_manifest(before, texts, out)
            fleet.keep_overrides(overrides)

        return replace(fleet.planned(desired, secrets, manifest=pinned), before=write)

    return run_change(fleet, out, verb="scale", look=look, flags=_flags(args, counts))


def _files(target: Target) -> tuple[str, ...]:
    files = target.sources()
    if not files:
        revision = fleet_of(target).history.latest()
        files = revision.origin.sources if revision is not None else ()
    missing = [file for file in files if file == STDIN or not Path(file).is_file()]
    if not files or missing:
        which = f"{missing[0]} is no file" if missing else "no manifest file is known"
        raise UsageError(f"{which}, so there is nothing to edit", hint="name the manifest, or use --live")
    return files


def _live(fleet: LocalFleet, counts: Mapping[str, int], args: argparse.Namespace, out: Output) -> int:
    now = fleet.now()
    until = now + args.lasting if args.lasting is not None else None
    new = [Override("replicas", group, now, who(), args.reason or "", until, count) for group, count in counts.items()]

    def look() -> PlannedChange:
        overrides = added(fleet.kept_overrides(), *new)
        desired = fleet.desired_as_applied(overrides=overrides)
        checked_names(tuple(counts), desired, groups_only=True)
        change = fleet.steered(desired, only=counts.keys() | sharing(desired))

        def write() -> None:
            fleet.keep_overrides(overrides)
            fleet.audit.write(*({"event": "override", "override": str(one)} for one in new))

        return replace(change, before=write)

    return run_change(fleet, out, verb="scale", look=look, flags=_flags(args, counts))


def _flags(args: argparse.Namespace, counts: Mapping[str, int]) -> ChangeFlags:
    words = ", ".join(f"{group}={count}" for group, count in counts.items())
    flags = ChangeFlags.of(args)
    return replace(flags, reason=flags.reason or f"scale {words}")
