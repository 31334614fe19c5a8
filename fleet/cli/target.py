"""Which fleet a command line means: manifests, or ``--fleet NAME``; and which of its groups and replicas."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.core.desired import group_of
from fleet.core.text.format import listed, seconds_in
from fleet.core.text.suggest import did_you_mean
from fleet.errors import Damaged, UsageError

if TYPE_CHECKING:
    from fleet.cli.output import Output
    from fleet.core.desired import Desired
    from fleet.core.observed import Observed
    from fleet.inputs.manifest import LoadedManifest
    from fleet.operate.local_fleet import LocalFleet
    from fleet.state.applied import Applied

DEFAULT_MANIFEST = "fleet.yaml"
CLUSTER = "kubernetes"
_SUFFIXES = (".yaml", ".yml", ".json")
_NAME = r"[a-z][a-z0-9-]{0,30}"  # of a fleet, as the manifest has it, without importing pydantic


def target_flags(parser: argparse.ArgumentParser, *, names: str = "", required: bool = False) -> None:
    """MANIFEST… and --fleet; ``names``: what else may stand among the words, for the help."""
    what = "manifest files, merged left to right" + (f"; {names}" if names else "")
    metavar = "WORD" if names else "MANIFEST"
    parser.add_argument("words", nargs="+" if required else "*", metavar=metavar, help=what)
    parser.add_argument("--fleet", metavar="NAME", default="", help="name of a fleet that was applied before")
    parser.add_argument(
        "--no-exec", action=_NoExec, nargs=0, default=False, help="refuse to run code that the manifest names"
    )


class _NoExec(argparse.Action):
    """Sets FLEET_NO_EXEC for all that this command does."""

    def __call__(self, parser: object, namespace: argparse.Namespace, *_: object) -> None:  # noqa: ARG002
        from fleet.inputs.no_exec import VARIABLE

        os.environ[VARIABLE] = "1"
        namespace.no_exec = True


def output_flag(parser: argparse.ArgumentParser, *more: str) -> None:
    """-o json; ``more``: formats besides text and json."""
    parser.add_argument("-o", "--output", choices=("text", "json", *more), default="text", help="how to print facts")


def action_argument(parser: argparse.ArgumentParser, actions: Mapping[str, str]) -> None:
    """What a verb of several actions does; ``actions``: each with its line of the help."""

    def known(text: str) -> str:
        if text in actions:
            return text
        hint = did_you_mean(text, actions) or f"one of {', '.join(actions)}"
        raise argparse.ArgumentTypeError(f"there is no action {text!r}: {hint}")

    lines = "\n".join(f"  {name:<8} {text}" for name, text in actions.items())
    parser.epilog = f"actions:\n{lines}"
    parser.add_argument("action", type=known, choices=tuple(actions), metavar="ACTION", help="see below")


def stream_flags(parser: argparse.ArgumentParser, *, lines: int | None) -> None:
    """-f, --since and -n; ``lines``: how many lines by default (None: all)."""
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new entries")
    parser.add_argument(
        "--since", type=since, metavar="TIME", help="only entries since then, such as 10m or 2026-11-21T05:00"
    )
    default = f"default {lines}" if lines else "default: all"
    parser.add_argument("-n", "--lines", type=_count, metavar="N", help=f"at most the last N ({default})")
    output_flag(parser)


def _count(text: str) -> int:
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number: {text!r}")


@dataclass(frozen=True, slots=True)
class Target:
    """The fleet, groups and replicas that the words of a command line name."""

    manifests: tuple[str, ...]
    names: tuple[str, ...]
    fleet: str = ""

    def sources(self) -> tuple[str, ...]:
        """The manifest files; `fleet.yaml` in this folder where none is named."""
        if self.manifests or self.fleet:
            return self.manifests
        return (DEFAULT_MANIFEST,) if Path(DEFAULT_MANIFEST).is_file() else ()


def target_of(args: argparse.Namespace) -> Target:
    """Manifests and names, apart. Raises UsageError for a manifest together with --fleet."""
    manifests = tuple(word for word in args.words if is_manifest(word))
    names = tuple(word for word in args.words if not is_manifest(word))
    if manifests and args.fleet:
        raise UsageError("a manifest and --fleet at once", hint="name the fleet one way or the other")
    return Target(manifests, names, args.fleet)


def is_manifest(word: str) -> bool:
    """Whether the word has the form of a file name."""
    return word == "-" or word.endswith(_SUFFIXES) or os.sep in word


def no_names(target: Target) -> None:
    """For verbs that take manifests only."""
    if target.names:
        hint = "a manifest's name ends with .yaml; a running fleet is named with --fleet NAME"
        raise UsageError(f"{target.names[0]!r} is not a manifest", hint=hint)


def fleet_of(target: Target, *, trusted: bool = False) -> LocalFleet:
    """The fleet that is meant, without reading more of a manifest than its name.

    Raises Refused where another account could change its files, unless it is ``trusted`` all the same.
    """
    from fleet import settings
    from fleet.operate.local_fleet import LocalFleet, known_fleets

    current = settings.load()
    if target.fleet:
        known = known_fleets(current.home)
        if target.fleet not in known:
            hint = did_you_mean(target.fleet, known) or "there are none"
            raise UsageError(f"there is no fleet {target.fleet!r} in {current.home}", hint=hint)
        return LocalFleet(target.fleet, settings=current, trusted=trusted)
    if sources := target.sources():
        refuse_cluster(sources)
        return LocalFleet(_name_in(sources), settings=current, trusted=trusted)
    known = known_fleets(current.home)
    if len(known) == 1:
        return LocalFleet(known[0], settings=current, trusted=trusted)
    hint = (
        f"known fleets in {current.home}: {', '.join(known)}"
        if known
        else "`fleet init` writes a manifest to start from"
    )
    raise UsageError("which fleet? Name a manifest, or use --fleet NAME", hint=hint)


def said_target(paths: Sequence[str]) -> str:
    """``spec.target`` of manifest files, found in their text; empty where they say nothing, or are pipes."""
    from fleet.core.manifest.tree import Findings, Source
    from fleet.core.manifest.yaml_reader import load
    from fleet.state.files import STDIN, read_named

    said: object = ""
    for path in paths:
        if path != STDIN and not Path(path).is_file():
            continue  # what is read once is read by the verb itself
        text = read_named(path)
        if b"target" not in text or b"kubernetes" not in text:
            continue
        tree = load(Source(path, text), Findings())
        node = tree.get("spec", "target") if tree is not None else None
        said = node.value if node is not None else said
    return said if isinstance(said, str) else ""


def refuse_cluster(sources: Sequence[str]) -> None:
    """Raise UsageError for manifests of a fleet in a cluster: the verb that asks works on this host."""
    if said_target(sources) == CLUSTER:
        hint = "in a cluster work plan, apply, status, logs, scale, restart, drain, resume, rollback, history and down"
        raise UsageError("this verb is for a fleet on a host, and the manifest says `target: kubernetes`", hint=hint)


def applied_or_told(fleet: LocalFleet, out: Output) -> Applied | None:
    """What was applied last, for a verb that can do without; damage is said."""
    try:
        return fleet.applied()
    except Damaged as error:
        out.say(f"warning: {error.message}\n  hint: {error.hint}")
        return None


def fleet_for(loaded: LoadedManifest) -> LocalFleet:
    """The fleet a manifest describes."""
    from fleet import settings
    from fleet.operate.local_fleet import LocalFleet

    return LocalFleet(loaded.name, settings=settings.load())


def manifest_of(target: Target) -> LoadedManifest:
    """The manifest that is meant: the files, else what was applied last."""
    from fleet import settings
    from fleet.inputs.manifest import from_files

    settings.load()  # refuses a variable that does not hold what it must, before anything else is done
    if sources := target.sources():
        return from_files(sources)
    return fleet_of(target).applied_manifest()


def _name_in(paths: Sequence[str]) -> str:
    """The fleet's name, found in the text, else by reading the whole manifest. Raises ManifestError."""
    from fleet.core.manifest.tree import Findings, Source
    from fleet.core.manifest.yaml_reader import load
    from fleet.state.files import read_named

    name: object = ""
    for path in paths:
        tree = load(Source(path, read_named(path)), Findings())
        node = tree.get("metadata", "name") if tree is not None else None
        name = node.value if node is not None else name
    if isinstance(name, str) and re.fullmatch(_NAME, name):
        return name
    from fleet.inputs.manifest import from_files

    return from_files(paths).name


def checked_names(
    names: Sequence[str], desired: Desired, *, groups_only: bool = False, replicas: Collection[str] | None = None
) -> tuple[str, ...]:
    """Names of groups or replicas, each known. Raises UsageError with a guess.

    replicas: those that there are, or are to be; None: not known, every index will do.
    """
    groups = [name for name, group in desired.groups.items() if not group.system]
    for name in names:
        named = group_of(name) in groups and not groups_only
        if name not in groups and not named:
            what = "group" if groups_only else "group or replica"
            hint = did_you_mean(name, groups) or "there are none"
            raise UsageError(f"there is no {what} {name!r} in fleet {desired.fleet!r}", hint=hint)
        if name not in groups and replicas is not None and name not in replicas:
            own = sorted(one for one in replicas if group_of(one) == group_of(name))
            hint = f"{group_of(name)} has {listed(own)}" if own else f"{group_of(name)} has no replicas"
            raise UsageError(f"there is no replica {name!r} in fleet {desired.fleet!r}", hint=hint)
    return tuple(names)


def replicas_of(desired: Desired, observed: Observed) -> set[str]:
    """Names of replicas that are there, and of those that are to be."""
    from fleet.core.planning.assignment import assign

    seen = observed.replicas.values()
    wanted = (assign(group, [one for one in seen if one.group == name]) for name, group in desired.groups.items())
    return set(observed.replicas) | {one.name for found in wanted for one in found.wanted.values()}


def groups_of(names: Iterable[str]) -> set[str]:
    """The groups that names of groups and replicas belong to."""
    return {group_of(name) for name in names}


def duration(text: str) -> float:
    """argparse type: ``90``, ``30s``, ``5m``, ``2h``."""
    seconds = float(text) if text.isdecimal() else seconds_in(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"not a duration: {text!r}; write it like '30s', '5m' or '2h'")
    return seconds


def since(text: str) -> float:
    """argparse type: a duration back from now, or a moment like ``2026-11-21T05:00``; as Unix seconds."""
    import time
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return time.time() - duration(text)
