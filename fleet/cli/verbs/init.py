"""init: a commented manifest and a tasks module to start from, or a manifest made from what runs today."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.cli.output import Output
from fleet.cli.progress import share
from fleet.errors import ManifestError, Problem, UsageError
from fleet.state.files import STDIN, read_named, write_whole

if TYPE_CHECKING:
    from fleet.authoring.convert import Imported


def init_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to write (default: here)")
    parser.add_argument("--name", metavar="NAME", help="name of the fleet (default: the folder's name)")
    parser.add_argument(
        "--from",
        dest="origin",
        nargs="+",
        metavar=("KIND", "FILE"),
        help="convert what runs today: a kind (auto, celery-multi, celeryd, compose, kubernetes, procfile, supervisor,"
        " systemd) and files, folders or patterns (- is standard input)",
    )
    parser.add_argument("--strict", action="store_true", help="with --from: what cannot be carried over is an error")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")


def init(args: argparse.Namespace, out: Output) -> int:
    """Write a manifest to start from, and say what to do next."""
    from fleet.authoring.template import MANIFEST_FILE, files, fleet_name
    from fleet.core.manifest.field_types import NAME_PATTERN

    folder = Path(args.folder)
    name = args.name or fleet_name(folder.resolve().name)
    if not re.match(NAME_PATTERN, name):
        raise UsageError(
            f"{name!r} is not a name for a fleet", hint="use lower-case letters, digits and -, with a letter first"
        )
    made = None if args.origin is None else _taken_over(name, args.origin, folder, out)
    if made is not None and args.strict and made.notes:
        raise _refusal(made.notes)
    texts = files(name) if made is None else _texts(name, made)
    there = [file for file in texts if (folder / file).exists()]
    if there and not args.force:
        raise UsageError(
            f"{folder / there[0]} exists already", hint="name a different folder, or use --force to overwrite it"
        )
    for file, text in texts.items():
        write_whole(folder / file, text, mode=0o644)
        out.say(f"wrote {folder / file}")
    if made is not None:
        _report(made, out)
    out.say(f"next: fleet plan {folder / MANIFEST_FILE}")
    return 0


def _taken_over(name: str, origin: list[str], folder: Path, out: Output) -> Imported:
    from fleet.authoring.convert import AUTO, KINDS, Input, import_files
    from fleet.inputs.origin import files_of, lookup

    kind, named = origin[0], origin[1:]
    if not named:
        where = kind if kind not in KINDS and os.path.exists(kind) else "."
        hint = f"name a kind, then files, folders or patterns: --from auto {where}"
        raise UsageError(f"--from {kind}: no file is named", hint=hint)
    with share(out, "looking for files") as tell:
        found = files_of(named, kind=kind, on_progress=tell)
    inputs, left = [], list(found.left)
    for file in found.files:
        try:
            where = "." if file == STDIN else os.path.relpath(Path(file).parent.resolve(), folder.resolve())
            inputs.append(Input(file, read_named(file).decode(), where))
        except UnicodeDecodeError as error:
            if kind != AUTO:
                raise UsageError(f"{file} is not UTF-8 text") from error
            left.append((file, "not UTF-8 text"))
    with share(out, "reading files") as tell:
        made = import_files(kind, inputs, name=name, files=lookup(found.files), on_progress=tell)
    return type(made)(made.manifest, made.notes, made.taken, (*made.left, *left))


def _texts(name: str, made: Imported) -> dict[str, str]:
    from fleet.authoring.template import MANIFEST_FILE, SCHEMA_FILE, files

    return {MANIFEST_FILE: made.manifest, SCHEMA_FILE: files(name)[SCHEMA_FILE]}


def _report(made: Imported, out: Output) -> None:
    for file, kind in made.taken:
        out.say(f"took {file} ({kind})")
    for file, why in made.left:
        out.say(f"left {file}: {why}")
    for note in made.notes:
        out.say(f"note: {note}")


def _refusal(notes: tuple[str, ...]) -> ManifestError:
    """The notes as problems of their files; nothing was written."""
    problems = []
    for note in notes:
        match = re.match(r"(?P<source>.*?)(?::(?P<line>[0-9]+))?: (?P<text>.*)$", note, re.DOTALL)
        source, line, text = (match["source"], match["line"], match["text"]) if match else ("", None, note)
        problems.append(Problem(source, int(line or 0), 1, "", text))
    return ManifestError(problems)
