"""init: a commented manifest and a tasks module to start from."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.cli.output import Output
from fleet.errors import UsageError
from fleet.state.files import read_named, write_whole

if TYPE_CHECKING:
    pass


def init_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to write (default: here)")
    parser.add_argument("--name", metavar="NAME", help="name of the fleet (default: the folder's name)")
    parser.add_argument(
        "--from",
        dest="origin",
        nargs=2,
        metavar=("KIND", "FILE"),
        help="convert an existing configuration (celery-multi, procfile, supervisor) from a file (- is standard input)",
    )
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
    texts, notes = (files(name), ()) if args.origin is None else _taken_over(name, *args.origin)
    there = [file for file in texts if (folder / file).exists()]
    if there and not args.force:
        raise UsageError(
            f"{folder / there[0]} exists already", hint="name a different folder, or use --force to overwrite it"
        )
    for file, text in texts.items():
        write_whole(folder / file, text, mode=0o644)
        out.say(f"wrote {folder / file}")
    for note in notes:
        out.say(f"note: {note}")
    out.say(f"next: fleet plan {folder / MANIFEST_FILE}")
    return 0


def _taken_over(name: str, kind: str, file: str) -> tuple[dict[str, str], tuple[str, ...]]:
    from fleet.authoring.convert import import_from
    from fleet.authoring.template import MANIFEST_FILE, SCHEMA_FILE, files

    try:
        text = read_named(file).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text") from error
    made = import_from(kind, text, name=name, source=file)
    return {MANIFEST_FILE: made.manifest, SCHEMA_FILE: files(name)[SCHEMA_FILE]}, made.notes
