"""validate, explain, render, schema, init: a manifest, and nothing that runs."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.cli.output import Output
from fleet.cli.target import no_names, output_flag, session_for, session_of, target_flags, target_of, wanted_of
from fleet.core import explain as explanation
from fleet.core.observed import Observed
from fleet.errors import FleetError, ManifestError, Problem, Refused, UsageError
from fleet.files import read_named, write_whole

if TYPE_CHECKING:
    from fleet.core.desired import Desired
    from fleet.core.sizing import Division
    from fleet.session import Session
    from fleet.wanted import Aim, Wanted

MASK = "********"


def validate_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of validate."""
    target_flags(parser)
    parser.add_argument("--strict", action="store_true", help="warnings are problems")
    parser.add_argument("--check-import", action="store_true", help="also import every app, as its workers would")
    output_flag(parser)


def validate(args: argparse.Namespace, out: Output) -> int:
    """Every problem at once; what holds is summed up in a line."""
    target = target_of(args)
    no_names(target)
    try:
        wanted = wanted_of(target)
        if args.strict and wanted.warnings:
            raise ManifestError(wanted.warnings)
        if args.check_import:
            _check_imports(wanted)
        _check_sums(wanted)
    except ManifestError as error:
        if not out.is_json:
            raise
        out.document({"valid": False, "problems": _problems(error.problems), "warnings": []})
        return error.exit_code
    groups = len(wanted.manifest.spec.groups)
    text = f"{', '.join(target.sources()) or wanted.name}: fleet {wanted.name}, {groups} groups, no problems"
    for warning in wanted.warnings:
        out.say(f"warning: {warning}")
    out.either({"valid": True, "fleet": wanted.name, "problems": [], "warnings": _problems(wanted.warnings)}, text)
    return 0


def _problems(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [{name: getattr(one, name) for name in Problem.__slots__} for one in problems]


def _check_imports(wanted: Wanted) -> None:
    """Import each app with the release's interpreter. Raises ManifestError with all that fail."""
    from fleet.core.specs import kind_of
    from fleet.machine import real_path
    from fleet.wanted import probe

    spec, base = wanted.manifest.spec, wanted.origin.base
    python = real_path(spec.release.python, base=base) if spec.release.python else sys.executable
    workdir = real_path(spec.release.workdir or base, base=base)
    apps: dict[str, str] = {}
    for name, group in spec.groups.items():
        if kind_of(group) != "command":
            apps.setdefault(group.app or spec.app or "", f"spec.groups.{name}.app" if group.app else "spec.app")
    failed = []
    for app, path in sorted(apps.items()):
        try:
            probe(app, python=python, workdir=workdir)
        except FleetError as error:
            failed.append(Problem(wanted.origin.sources[0], 0, 0, path, error.message, error.hint))
    if failed:
        raise ManifestError(failed)


def _check_sums(wanted: Wanted) -> None:
    """Sums that do not add up are problems of the manifest: they have a place in it."""
    try:
        _add_up(wanted)
    except Refused as error:
        written = ("budgets", "concurrency", "groups")
        path = next((f"spec.{name}" for name in written if wanted.document["spec"].get(name)), "spec")
        if wanted.positions is None:
            raise ManifestError([Problem(wanted.name, 0, 0, path, error.message, error.hint)]) from error
        raise ManifestError([wanted.positions.problem(path, error.message, error.hint)]) from error


def _add_up(wanted: Wanted) -> None:
    """Budgets from nothing, without secrets, apps or anything that runs: what is unknown counts as the default."""
    from fleet.core import budget
    from fleet.core.expand import expand
    from fleet.core.facts import Facts
    from fleet.core.planner import plan
    from fleet.core.rollout import in_waves
    from fleet.machine import cpus

    facts = Facts(cpus=cpus(), embedded_url="redis+socket:///", embedded_command=("redis-server",))
    desired = expand(wanted.manifest, facts=facts)
    empty = Observed(wanted.name)
    budget.check(desired, in_waves(plan(desired, empty), desired, empty), empty)


def explain_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of explain."""
    target_flags(parser)
    parser.add_argument("--live", action="store_true", help="what the controller sees and decides now, group by group")
    output_flag(parser)


def explain(args: argparse.Namespace, out: Output) -> int:
    """The shape of every group with its reason."""
    target = target_of(args)
    no_names(target)
    if args.live:
        from fleet.cli.verbs.balancing import explain_live

        return explain_live(session_of(target), out)
    wanted = wanted_of(target)
    session = session_for(wanted)
    desired = session.aim(wanted).desired
    division = _division(session, wanted, desired)
    out.either(
        explanation.document(desired, division), explanation.text(desired, division, moved=session.exceptions().slots)
    )
    return 0


def _division(session: Session, wanted: Wanted, desired: Desired) -> Division | None:
    """How what fixed groups leave was divided, live exceptions counted."""
    from fleet.core.expand import static_division

    return static_division(wanted.manifest, desired, overrides=session.exceptions())


def render_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of render."""
    target_flags(parser)
    parser.add_argument("--target", choices=("supervisor",), default="supervisor", help="for which backend")
    parser.add_argument("--out", metavar="DIR", help="write the files there instead of printing them")


def render(args: argparse.Namespace, out: Output) -> int:
    """The files of a fleet that starts from nothing; values of secrets are masked."""
    target = target_of(args)
    no_names(target)
    wanted = wanted_of(target)
    session = session_for(wanted)
    files = _files(session, session.aim(wanted))
    if args.out:
        for name, text in files.items():
            write_whole(Path(args.out) / name, text)
        out.say(f"{len(files)} files in {args.out}")
        return 0
    for name, text in files.items():
        out.facts(f"# --- {name}\n{text}")
    return 0


def _files(session: Session, aim: Aim) -> Mapping[str, str]:
    from fleet.backends.supervisor import config
    from fleet.backends.supervisor.folder import Folder
    from fleet.core.assignment import assign

    places, folder = session.places, Folder(session.places)
    replicas = [one for group in aim.desired.groups.values() for one in assign(group, ()).wanted.values()]
    room = sum(group.replicas + group.rollout.max_surge for group in aim.desired.groups.values())
    root = os.geteuid() == 0
    files = {"run/supervisord.conf": config.daemon_text(places, descriptors=config.descriptors(room), as_root=root)}
    masked = dict.fromkeys(aim.secrets, MASK)
    for one in replicas:
        program = config.Program(one.name, one.digest, one.spec.drain_timeout_seconds)
        text = config.program_text(program, places=places, python=sys.executable)
        files[f"run/conf.d/{one.name}.conf"] = text
        files[f"run/specs/{one.name}.json"] = folder.document(one, text, masked).decode()
    return files


def schema_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of schema."""
    parser.add_argument("--out", metavar="FILE", help="write it there instead of printing it")


def schema(args: argparse.Namespace, out: Output) -> int:
    """The JSON Schema that editors complete from."""
    from fleet.core import parse

    text = json.dumps(parse.schema(), indent=2, ensure_ascii=False) + "\n"
    if args.out:
        write_whole(Path(args.out).absolute(), text, mode=0o644)
    else:
        out.facts(text)
    return 0


def init_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of init."""
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to write (default: here)")
    parser.add_argument("--name", metavar="NAME", help="of the fleet (default: the folder's)")
    parser.add_argument(
        "--from",
        dest="origin",
        nargs=2,
        metavar=("KIND", "FILE"),
        help="take over what is there: celery-multi, procfile or supervisor, and its file (- is the standard input)",
    )
    parser.add_argument("--force", action="store_true", help="write over files that are there")


def init(args: argparse.Namespace, out: Output) -> int:
    """Write a manifest to start from, and say what to do next."""
    from fleet.core.field_types import NAME_PATTERN
    from fleet.starter import MANIFEST_FILE, files, fleet_name

    folder = Path(args.folder)
    name = args.name or fleet_name(folder.resolve().name)
    if not re.match(NAME_PATTERN, name):
        raise UsageError(f"{name!r} is no name for a fleet", hint="lower case letters, digits and -, a letter first")
    texts, notes = (files(name), ()) if args.origin is None else _taken_over(name, *args.origin)
    there = [file for file in texts if (folder / file).exists()]
    if there and not args.force:
        raise UsageError(f"{folder / there[0]} is there already", hint="another folder, or --force to write over it")
    for file, text in texts.items():
        write_whole(folder / file, text, mode=0o644)
        out.say(f"wrote {folder / file}")
    for note in notes:
        out.say(f"note: {note}")
    out.say(f"next: fleet plan {folder / MANIFEST_FILE}")
    return 0


def _taken_over(name: str, kind: str, file: str) -> tuple[dict[str, str], tuple[str, ...]]:
    from fleet.starter import MANIFEST_FILE, SCHEMA_FILE, files, import_from

    try:
        text = read_named(file).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text") from error
    made = import_from(kind, text, name=name, source=file)
    return {MANIFEST_FILE: made.manifest, SCHEMA_FILE: files(name)[SCHEMA_FILE]}, made.notes
