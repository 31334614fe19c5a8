"""Reads files that a person names; writes so that a crash leaves the old file or the new one, never a part of one."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.errors import CannotWrite, Damaged, UsageError
from fleet.file_access import KEPT_BYTES, NAMED_BYTES, make_folders, open_folder, read_descriptor, read_file

STDIN = "-"
Stamp = tuple[int, int, int, int]
"""Of a file that is replaced as a whole: another one has another stamp."""


def stamp_of(path: str | Path) -> Stamp | None:
    """The stamp of the file at ``path``, of a link its own; None where there is none."""
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size, facts.st_uid


def read_named(path: str) -> bytes:
    """The bytes of a manifest file; ``-`` is the standard input. Raises UsageError for what cannot be read."""
    if path == STDIN:
        return _standard_input()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # blocks: a shell's <(command) is a pipe
        try:
            return read_descriptor(descriptor, Path(path), limit_bytes=NAMED_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = "name a manifest file, or a running fleet with --fleet NAME; `fleet init` writes one to start from"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=hint) from error


@lru_cache(maxsize=1)
def _standard_input() -> bytes:
    """Standard input, read once: both the name and the manifest are taken from it."""
    data = sys.stdin.buffer.read(NAMED_BYTES + 1)
    if len(data) > NAMED_BYTES:
        raise UsageError(f"the standard input is longer than {NAMED_BYTES:,} bytes", hint="is this the right file?")
    return data


def read_kept(path: Path, *, hint: str) -> str | None:
    """The text of a file that fleet wrote; None where there is none.

    Raises Damaged, with the hint, for one that is empty or cannot be read: fleet never writes such a file.
    """
    try:
        text = read_file(path, limit_bytes=KEPT_BYTES, own=True).decode()
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
        make_folders(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_all({path: text.encode()}, mode=mode, lasting=lasting)


def write_all(
    files: Mapping[Path, bytes], *, mode: int = 0o600, lasting: bool = True, owner: tuple[int, int] | None = None
) -> None:
    """Replace these files, each in one step: a reader sees the old one or the new one, also after a power failure.

    All are written under temporary names beside them, and flushed to the disk, before the first is renamed. Raises
    CannotWrite. lasting: False does not flush; after a crash of the machine the file may be the old one, or empty.
    owner: uid and gid that the files are given to, before anybody can open them.
    """
    at = Path()
    with ExitStack() as leftovers:
        try:
            fresh = {}
            for at, data in files.items():
                fresh[at] = _write_beside(at, data, mode, lasting, leftovers, owner)
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


def rewrite(path: Path, text: str, *, was: bytes) -> None:
    """Replace a person's file in one step, with its mode, owner and group, also through symbolic links.

    was: what it held when it was read; a file that holds something else is left alone. Raises CannotWrite; the file
    is then as it was. All goes through descriptors: whoever can rename things around the file cannot make this process
    give another file away, or write somewhere else.
    """
    real = path.resolve()
    try:
        folder = open_folder(real.parent)
        try:
            _rewrite_in(folder, real.name, text.encode(), was)
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(real, error) from error


def _rewrite_in(folder: int, name: str, data: bytes, was: bytes) -> None:
    old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        facts = os.fstat(old)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if read_descriptor(old, Path(name), limit_bytes=NAMED_BYTES) != was:
            raise OSError(errno.EBUSY, "somebody changed it meanwhile")
        fresh = f".{name}.{os.urandom(8).hex()}.tmp"
        _write_new(folder, fresh, data, facts)
        try:
            now = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not os.path.samestat(now, facts):
                raise OSError(errno.EBUSY, "somebody replaced it meanwhile")
            os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(fresh, dir_fd=folder)
            raise
        os.fsync(folder)
    finally:
        os.close(old)


def _write_new(folder: int, name: str, data: bytes, like: os.stat_result) -> None:
    """A new file with the owner, group and mode of another; none where that cannot be."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            made = os.fstat(descriptor)
            if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, like.st_mode & 0o7777)
            os.fsync(descriptor)
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """The error for a file that the system refuses to write, with a hint."""
    hint = "run as the user who owns the fleet, or set FLEET_HOME to a folder of your own"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space there, or set FLEET_HOME to a folder that has some"
    return CannotWrite(f"cannot write {path}: {error.strerror}", hint=hint)


def _write_beside(
    path: Path, data: bytes, mode: int, lasting: bool, leftovers: ExitStack, owner: tuple[int, int] | None
) -> Path:
    """A new file in the same folder; ``leftovers`` removes it unless it has been renamed by then."""
    import tempfile  # not for commands that only read

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    leftovers.callback(Path(name).unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if owner is not None:
            os.fchown(file.fileno(), *owner)
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
