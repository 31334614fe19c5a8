"""Reads files that a person names; writes so that a crash leaves the old file or the new one, never a part of one."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.errors import CannotWrite, Damaged, UsageError

STDIN = "-"


def read_named(path: str) -> bytes:
    """The bytes of a manifest file; ``-`` is the standard input. Raises UsageError for what cannot be read."""
    if path == STDIN:
        return _standard_input()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        hint = "name a manifest file, or a running fleet with --fleet NAME; `fleet init` writes one to start from"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=hint) from error


@lru_cache(maxsize=1)
def _standard_input() -> bytes:
    """Standard input, read once: both the name and the manifest are taken from it."""
    return sys.stdin.buffer.read()


def read_kept(path: Path, *, hint: str) -> str | None:
    """The text of a file that fleet wrote; None where there is none.

    Raises Damaged, with the hint, for one that is empty or cannot be read: fleet never writes such a file.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(path, error.strerror or repr(error), hint=hint) from error
    except UnicodeDecodeError as error:
        raise damaged(path, "it is no text", hint=hint) from error
    if not text.strip():
        raise damaged(path, "it is empty", hint=hint)
    return text


def read_kept_json(path: Path, *, hint: str) -> dict[str, Any] | None:
    """The JSON object in a file that fleet wrote; None where there is none. Raises Damaged as :func:`read_kept`."""
    text = read_kept(path, hint=hint)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is no JSON: {error}", hint=hint) from error
    if not isinstance(document, dict):
        raise damaged(path, "it is no JSON object", hint=hint)
    return document


def damaged(path: Path, why: object, *, hint: str) -> Damaged:
    """What to say of a file of fleet's own that makes no sense."""
    return Damaged(f"{path} is damaged: {why}", hint=hint)


def write_whole(path: Path, text: str, *, mode: int = 0o600, lasting: bool = True) -> None:
    """Replace a file in one step, as :func:`write_all`; the folder is made where it is missing."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_all({path: text.encode()}, mode=mode, lasting=lasting)


def write_all(files: Mapping[Path, bytes], *, mode: int = 0o600, lasting: bool = True) -> None:
    """Replace these files, each in one step: a reader sees the old one or the new one, also after a power failure.

    All are written under temporary names beside them, and flushed to the disk, before the first is renamed. Raises
    CannotWrite. lasting: False does not flush; after a crash of the machine the file may be the old one, or empty.
    """
    at = Path()
    with ExitStack() as leftovers:
        try:
            fresh = {}
            for at, data in files.items():
                fresh[at] = _write_beside(at, data, mode, lasting, leftovers)
            for at, name in fresh.items():
                os.replace(name, at)
            if lasting:
                for at in {path.parent for path in files}:
                    _flush_folder(at)
        except OSError as error:
            raise cannot_write(at, error) from error


def remove_kept(path: Path) -> None:
    """Remove a file, if it is there. Raises CannotWrite."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot remove {path}: {error.strerror}", hint="move it away") from error


def rewrite(path: Path, text: str) -> None:
    """Replace a person's file in one step, with its mode and owner, also through symbolic links."""
    real = path.resolve()
    facts = real.stat()
    write_whole(real, text, mode=facts.st_mode & 0o7777)
    if facts.st_uid != os.geteuid():
        os.chown(real, facts.st_uid, facts.st_gid)


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """The error for a file that the system refuses to write, with a hint."""
    hint = "run as the user who owns the fleet, or set FLEET_HOME to a folder of your own"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space there, or set FLEET_HOME to a folder that has some"
    return CannotWrite(f"cannot write {path}: {error.strerror}", hint=hint)


def _write_beside(path: Path, data: bytes, mode: int, lasting: bool, leftovers: ExitStack) -> Path:
    """A new file in the same folder; ``leftovers`` removes it unless it has been renamed by then."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    leftovers.callback(Path(name).unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), mode)
        if lasting:
            os.fsync(file.fileno())
    return Path(name)


def _flush_folder(folder: Path) -> None:
    """A rename lasts only once the folder itself is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
