"""Opens files and folders so that neither another account nor a hostile file decides what is read or written.

Every refusal is an OSError whose ``strerror`` says what is wrong, so that callers treat it as any file they cannot use.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import Refused

NAMED_BYTES = 16 << 20
"""The longest file that a person names: a manifest, a saved plan."""
KEPT_BYTES = 64 << 20
"""The longest file of fleet's own that is read whole."""
SMALL_BYTES = 1 << 16
"""The longest file that holds a few words: a lock, a pid, a git HEAD."""
PASSABLE = 0o711
"""The mode of a folder that other accounts pass through and cannot list."""
_WAY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_file(path: Path, *, limit_bytes: int, own: bool = False) -> bytes:
    """The bytes of a regular file. Raises OSError, also for one that is longer, or a pipe, device or folder.

    own: neither a link nor a file of another account is read, root's excepted.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if own else 0)  # a pipe without a writer must not hang
    descriptor = _opened(path, flags)
    try:
        facts = os.fstat(descriptor)
        _require_regular(path, facts)
        if own:
            _require_owner(path, facts, root=True)
        return read_descriptor(descriptor, path, limit_bytes=limit_bytes)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, path: Path, *, limit_bytes: int) -> bytes:
    """What can be read from here to the end. Raises OSError for more than the limit, without reading the rest."""
    parts: list[bytes] = []
    left = limit_bytes + 1
    while left and (part := os.read(descriptor, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise OSError(errno.EFBIG, f"it is longer than {limit_bytes:,} bytes", str(path))
    return b"".join(parts)


def open_own(path: Path, flags: int, mode: int = 0o600, *, owner: int | None = None) -> int:
    """The descriptor of a regular file of this account; a link is not followed. Raises OSError.

    With O_TRUNC the file is emptied only after it is known to be one's own.  owner: the uid that it must belong to
    instead.
    """
    descriptor = _opened(path, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    try:
        facts = os.fstat(descriptor)
        _require_regular(path, facts)
        _require_owner(path, facts, root=False, owner=owner)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_folders(path: Path) -> None:
    """Make a folder and those above it, each that is new for its owner only. Raises OSError."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode):
            raise OSError(errno.ENOTDIR, "it is no folder", str(folder))


def make_private(folder: Path, *, passable: bool = False) -> None:
    """Make a folder for its owner only, or make an existing one so. Raises OSError for one of another account.

    passable: others may reach what they know the name of in there, and are let to; they cannot list it.
    """
    mode = PASSABLE if passable else 0o700
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        facts = os.fstat(descriptor)
        _require_owner(folder, facts, root=False)
        if stat.S_IMODE(facts.st_mode) & 0o077 != mode & 0o077:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def let_pass(folder: Path) -> None:
    """Others may pass through this folder of our own, if nobody could until now. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        if facts.st_uid == os.geteuid() and not facts.st_mode & 0o077:
            os.fchmod(descriptor, PASSABLE)
    finally:
        os.close(descriptor)


def give_folder(folder: Path, uid: int, gid: int) -> None:
    """Make a folder for this account only. Raises OSError, also for one that is neither its own nor this account's."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        if os.fstat(descriptor).st_uid != uid:
            _require_owner(folder, os.fstat(descriptor), root=False)
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def open_folder(path: Path) -> int:
    """The descriptor of a folder, reached without following a link. Raises OSError. ``path`` is absolute."""
    descriptor = os.open("/", _WAY_FLAGS)
    for part in (*path.parts[1:], "."):
        try:
            inner = os.open(part, _FOLDER_FLAGS if part == "." else _WAY_FLAGS, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


@dataclass(frozen=True, slots=True)
class Fault:
    """What makes a path unfit to hold a fleet."""

    path: Path
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.path} {self.message}"


def faults_above(home: Path) -> list[Fault]:
    """What lets another account replace ``home``: a folder above it, or a link on the way, that others can change.

    A folder with the sticky bit may be writable, as /tmp is: nobody can replace another's entry there.
    """
    found = []
    home = home.absolute()
    for place in dict.fromkeys([*_links(home), *(Path(os.path.realpath(home))).parents, Path(os.path.realpath(home))]):
        try:
            facts = place.lstat()
        except OSError:
            continue
        if (fault := _fault_of_parent(place, facts)) is not None:
            found.append(fault)
    return found


def faults_within(root: Path, folders: tuple[Path, ...]) -> list[Fault]:
    """What makes a fleet's own folders unfit: each must be a folder of this account that others cannot write to."""
    found = []
    for place in (root, *folders):
        try:
            facts = place.lstat()
        except OSError:
            continue
        if (fault := fault_of_own(place, facts, folder=True)) is not None:
            found.append(fault)
    return found


def fault_of_own(path: Path, facts: os.stat_result, *, folder: bool) -> Fault | None:
    """What makes one file or folder of a fleet unfit; None where nothing does."""
    kind, fits = ("folder", stat.S_ISDIR) if folder else ("regular file", stat.S_ISREG)
    if stat.S_ISLNK(facts.st_mode) or not fits(facts.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(facts.st_mode) else f"no {kind}"
        return Fault(path, f"is {what}", "fleet keeps its files in real folders of its own: move it away")
    if facts.st_uid != os.geteuid():
        message = f"belongs to {account(facts.st_uid)}, not to {account(os.geteuid())}"
        return Fault(path, message, "run as the fleet's owner, or set FLEET_HOME to a folder of your own")
    if _others_write(facts):
        return Fault(path, f"has mode {stat.S_IMODE(facts.st_mode):04o}: others can write to it", f"chmod go-w {path}")
    return None


def refuse(faults: list[Fault]) -> None:
    """Raise Refused with the first of them."""
    if faults:
        raise Refused(str(faults[0]), hint=faults[0].hint)


def account(uid: int) -> str:
    """The name of an account, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _links(path: Path) -> list[Path]:
    return [place for place in (path, *path.parents) if place.is_symlink()]


def _fault_of_parent(place: Path, facts: os.stat_result) -> Fault | None:
    hint = "set FLEET_HOME to a folder that only you can change"
    if facts.st_uid not in (0, os.geteuid()):
        return Fault(place, f"belongs to {account(facts.st_uid)}, who can replace this fleet's files", hint)
    if stat.S_ISLNK(facts.st_mode):
        return None
    if _others_write(facts) and not facts.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(facts.st_mode)
        return Fault(
            place, f"has mode {mode:04o}: others can replace this fleet's files", f"chmod go-w {place}, or {hint}"
        )
    return None


def _others_write(facts: os.stat_result) -> bool:
    if facts.st_mode & stat.S_IWOTH:
        return True
    return bool(facts.st_mode & stat.S_IWGRP) and not _is_private_group(facts)


def _is_private_group(facts: os.stat_result) -> bool:
    """Whether only the owner is in the group: distributions make such groups, with an umask of 002."""
    try:
        owner, group = pwd.getpwuid(facts.st_uid), grp.getgrgid(facts.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == facts.st_gid and owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}


def _opened(path: Path, flags: int, mode: int = 0o600) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        raise


def _require_regular(path: Path, facts: os.stat_result) -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def _require_owner(path: Path, facts: os.stat_result, *, root: bool, owner: int | None = None) -> None:
    wanted = os.geteuid() if owner is None else owner
    if facts.st_uid != wanted and not (root and facts.st_uid == 0):
        message = f"it belongs to {account(facts.st_uid)}, not to {account(wanted)}"
        raise OSError(errno.EPERM, message, str(path))
