"""Procfiles: one line per process, run by a shell in the folder of the file."""

from __future__ import annotations

import re

from fleet.authoring.convert.draft import After, Draft, Program
from fleet.authoring.convert.programs import add_program
from fleet.errors import UsageError

KIND = "procfile"
EXPECTED = "give lines like `worker: celery -A shop worker`"
_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)$")


def is_kind(text: str) -> bool:
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    return bool(lines) and all(_LINE.match(line) for line in lines)


def read(text: str, draft: Draft) -> None:
    """Add a group for each line; a line that is none is refused, because its process would be lost."""
    first = 0
    has_release = re.search(r"(?m)^\s*release:\s*\S", text) is not None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise UsageError(f"{draft.source}:{number}: not a line of a Procfile: {line[:60]}", hint=EXPECTED)
        first = first or number
        program = Program(match[1], number, shell=match[2], env_files=_env_files(draft), workdir=_folder(draft))
        if match[1] == "release":
            program.fields["job"] = True
        elif has_release:
            program.after.append(After("release", completed=True))
        try:
            add_program(draft, program)
        except ValueError as error:
            raise UsageError(f"{draft.source}:{number}: {match[1]}: {error}", hint="check the quotes") from error
    if first:
        text_of_note = "processes of a Procfile see all variables around them, replicas only those that env and envFrom"
        draft.note(f"{text_of_note} name: add what the programs read, {{inherit: [DATABASE_URL, …]}}", first)


def _folder(draft: Draft) -> str:
    return "" if draft.folder == "." else draft.folder


def _env_files(draft: Draft) -> list[str]:
    """The .env beside the file, which foreman and honcho read."""
    return [draft.beside(".env")] if draft.files.read(".env") is not None else []
