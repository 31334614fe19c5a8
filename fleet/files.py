"""Reading what a person names, and writing so that a crash leaves the old file or the new one, never half of either."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from fleet.errors import FleetError, UsageError

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
    """It can be read once only, and both the name and the manifest are wanted of it."""
    return sys.stdin.buffer.read()


def write_whole(path: Path, text: str, *, mode: int = 0o600, lasting: bool = True) -> None:
    """Replace the file in one step: a temporary name beside it, flushed to the disk, then renamed.

    lasting: False spares the disk; after a crash of the machine an older file may be there, or an empty one.
    """
    try:
        _write_whole(path, text, mode, lasting)
    except OSError as error:
        raise cannot_write(path, error) from error


def rewrite(path: Path, text: str) -> None:
    """Replace a person's file in one step, with its mode and owner, through whatever link leads to it."""
    real = path.resolve()
    facts = real.stat()
    write_whole(real, text, mode=facts.st_mode & 0o7777)
    if facts.st_uid != os.geteuid():
        os.chown(real, facts.st_uid, facts.st_gid)


def cannot_write(path: Path, error: OSError) -> FleetError:
    """What to say when the system refuses a file."""
    hint = "run as the user who owns the fleet, or set FLEET_HOME to a folder of your own"
    return FleetError(f"cannot write {path}: {error.strerror}", hint=hint)


def _write_whole(path: Path, text: str, mode: int, lasting: bool) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if lasting:
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    if lasting:
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """A rename lasts only once the folder itself is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
