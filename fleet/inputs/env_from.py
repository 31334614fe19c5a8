"""Reads what ``envFrom`` names: files of variables, and variables of the fleet command."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from fleet.core.expand.env_from import BUNDLE, file_prefix, inherit_key
from fleet.core.manifest.field_types import ENV_PATTERN
from fleet.core.manifest.models import EnvSource, Manifest
from fleet.inputs.secrets import SecretError

MOST_BYTES = 1 << 20
_LINE = r"(?s)\s*(?:export\s+)?(?P<name>[^\s=#]+)\s*=[ \t]*(?P<rest>.*)"
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def values_of(
    manifest: Manifest, *, folder: Path, environ: Mapping[str, str], bundle: str | None = None
) -> dict[str, str]:
    """Key -> value of every variable that groups take, and all of them as one value under BUNDLE.

    Relative files start from ``folder``.  bundle: what an apply read, instead of reading again.  Raises SecretError.
    """
    if bundle is None:
        found: dict[str, str] = {}
        for name in sorted(manifest.spec.groups):
            for source in manifest.spec.groups[name].env_from or []:
                found |= _read(source, folder, environ, group=name)
        bundle = json.dumps(found, sort_keys=True)
    return {**json.loads(bundle), BUNDLE: bundle}


def _read(source: EnvSource, folder: Path, environ: Mapping[str, str], *, group: str) -> dict[str, str]:
    names = source.inherit or []
    missing = [name for name in names if name not in environ]
    if missing and not source.optional:
        hint = "set them for the fleet command, or write `optional: true` beside inherit"
        raise SecretError(f"group {group}: envFrom.inherit: not set: {', '.join(missing)}", hint=hint)
    found = {inherit_key(name): environ[name] for name in names if name in environ}
    if source.file is not None:
        text = _text(folder / source.file, source, group)
        prefix = file_prefix(source.file)
        found |= {f"{prefix}{name}": value for name, value in variables_in(text, source=source.file).items()}
    return found


def _text(path: Path, source: EnvSource, group: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        if source.optional:
            return ""
        hint = "create it, or write `optional: true` beside file"
        raise SecretError(f"group {group}: envFrom.file: there is no {path}", hint=hint) from error
    except OSError as error:
        raise SecretError(f"group {group}: envFrom.file: cannot read {path}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise SecretError(f"group {group}: envFrom.file: {path} is larger than {MOST_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SecretError(f"group {group}: envFrom.file: {path} is not UTF-8 text") from error


def variables_in(text: str, *, source: str) -> dict[str, str]:
    """The variables of a dotenv file. Raises SecretError with the line for what is none.

    ``NAME=value`` and ``export NAME=value``; ``#`` begins a comment at the start of a line and after a blank. In double
    quotes ``\\n``, ``\\t``, ``\\"`` and ``\\\\`` are escapes and a value may have several lines; in single quotes
    nothing is. ``${NAME}`` is text.
    """
    found: dict[str, str] = {}
    text = text.replace("\r\n", "\n")
    position, number = 0, 0
    while position < len(text):
        start, number, began = number + 1, number + 1, position
        line = text[began : _line_end(text, began)]
        position += len(line) + 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(_LINE, line)
        if match is None or re.fullmatch(ENV_PATTERN[1:-1], match["name"]) is None:
            raise SecretError(f"{source}:{start}: not a variable", hint="write NAME=value, or # before a comment")
        rest = match["rest"]
        if rest[:1] in {'"', "'"} and (end := _closing(text, began + match.start("rest"))) >= position:
            rest = text[began + match.start("rest") : _line_end(text, end)]
            position = began + match.start("rest") + len(rest) + 1
            number += rest.count("\n")
        found[match["name"]] = _value(rest, source=source, line=start)
    return found


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _closing(text: str, opening: int = 0) -> int:
    """Where the quote that opens at this position ends, or -1."""
    position = opening + 1
    while position < len(text):
        if text[position] == "\\" and text[opening] == '"':
            position += 1
        elif text[position] == text[opening]:
            return position
        position += 1
    return -1


def _value(text: str, *, source: str, line: int) -> str:
    if text[:1] not in {'"', "'"}:
        return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()
    end = _closing(text)
    after = text[end + 1 :].strip()
    if end < 0 or (after and not after.startswith("#")):
        raise SecretError(f"{source}:{line}: the quotes do not end where the value does", hint="check the quotes")
    inner = text[1:end]
    if text[0] == "'":
        return inner
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), inner, flags=re.DOTALL)
