"""The values of secrets, read when they are needed and never stored: from a file, the environment or a command.

A plan must notice that a secret was rotated without knowing it, so specs carry a keyed fingerprint: HMAC-SHA256 with a
key that each fleet has for itself. Without the key nobody can test guesses against a plan or a log.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import signal
import stat
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.core.text.format import counted, shown
from fleet.errors import FleetError
from fleet.file_access import SMALL_BYTES, account, make_folders, read_file
from fleet.inputs.no_exec import refuse_code
from fleet.state.files import cannot_write

if TYPE_CHECKING:
    from fleet.core.manifest.models import Secret

EXEC_TIMEOUT_SECONDS = 30.0
MOST_BYTES = 128 * 1024 - 256
KEY_BYTES = 32
_FINGERPRINT_DIGITS = 16
_KEY_HINT = "remove it; workers that use secrets are then replaced once"


class SecretError(FleetError):
    """A secret could not be read."""


def resolve(
    declared: Mapping[str, Secret],
    *,
    folder: Path,
    environ: Mapping[str, str],
    only: Collection[str] | None = None,
    timeout_seconds: float = EXEC_TIMEOUT_SECONDS,
) -> dict[str, str]:
    """Name -> value. Relative files and commands start from ``folder``. Raises SecretError naming all that failed."""
    values: dict[str, str] = {}
    failed: list[SecretError] = []
    for name in sorted(declared if only is None else only):
        try:
            values[name] = _usable(_read(declared[name], folder, environ, timeout_seconds))
        except SecretError as error:
            failed.append(SecretError(f"secret {name}: {error.message}", hint=error.hint))
    if failed:
        raise _together(failed)
    return values


def fingerprint(value: str, *, key: bytes) -> str:
    """A keyed hash of the value: it changes with the value and reveals nothing without the key."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:_FINGERPRINT_DIGITS]


def fingerprints(values: Mapping[str, str], *, key: bytes) -> dict[str, str]:
    """Name -> fingerprint, as ``Facts.secrets`` takes them."""
    return {name: fingerprint(value, key=key) for name, value in values.items()}


def fleet_key(path: Path) -> bytes:
    """The key of one fleet. Without a key file: a new one, the same during this process.

    Reading a key writes nothing, so that a plan, or an apply that is refused, leaves nothing behind.
    """
    try:
        return _whole_key(path)
    except FileNotFoundError:
        return _new_key(path)
    except OSError as error:
        raise SecretError(f"the key file {path} cannot be read: {error.strerror}", hint=_KEY_HINT) from error


def keep_key(path: Path) -> None:
    """Write what ``fleet_key`` returned, mode 0600, unless the file exists. Of two commands at once the first wins."""
    if path.exists():
        return
    try:
        _write_key(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _write_key(path: Path) -> None:
    make_folders(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_new_key(path))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # whole or not at all, and the first one wins
    finally:
        os.unlink(fresh)


@lru_cache
def _new_key(_path: Path) -> bytes:
    return os.urandom(KEY_BYTES)


def _whole_key(path: Path) -> bytes:
    key = read_file(path, limit_bytes=SMALL_BYTES, own=True)
    if len(key) != KEY_BYTES:
        message = f"the key file {path} is damaged: {len(key)} bytes instead of {KEY_BYTES}"
        raise SecretError(message, hint=_KEY_HINT)
    return key


def _together(failed: list[SecretError]) -> SecretError:
    if len(failed) == 1:
        return failed[0]
    lines = [f"{error.message} ({error.hint})" if error.hint else error.message for error in failed]
    return SecretError("\n".join(lines))


def _read(secret: Secret, folder: Path, environ: Mapping[str, str], timeout_seconds: float) -> str:
    if secret.file is not None:
        return _text(_from_file(folder / Path(secret.file).expanduser()), strip=True)
    if secret.exec is not None:
        return _text(_from_command(secret.exec, folder, environ, timeout_seconds), strip=True)
    name = secret.env or ""
    if name not in environ:
        hint = f"set it for the fleet command: {name}=… fleet apply"
        raise SecretError(f"the environment variable {name} is not set", hint=hint)
    return _text(os.fsencode(environ[name]), strip=False)


def _text(data: bytes, *, strip: bool) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise SecretError("the value is not UTF-8 text", hint="encode it, for instance as base64") from error
    if strip:  # editors and `echo` add one line ending
        text = text.removesuffix("\n").removesuffix("\r")
    return text


def _usable(value: str) -> str:
    if not value:
        raise SecretError("the value is empty", hint="an empty secret is nearly always a mistake")
    if "\x00" in value:
        raise SecretError("the value holds a NUL byte", hint="no variable can hold that; encode it")
    if len(value.encode()) > MOST_BYTES:
        raise SecretError(f"the value is longer than {MOST_BYTES:,} bytes", hint="give workers the path of the file")
    return value


def _from_file(path: Path) -> bytes:
    try:
        # Not blocking: a named pipe that nobody writes to must not hang the command.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "create it with mode 0600, or correct spec.secrets"
        raise SecretError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    try:
        _refuse_open_file(path, os.fstat(descriptor))
        return os.read(descriptor, MOST_BYTES + 2)
    finally:
        os.close(descriptor)


def _refuse_open_file(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise SecretError(f"{path} is not a regular file", hint="use exec for what comes from a program")
    if facts.st_uid not in (0, os.geteuid()):
        hint = f"give it to {account(os.geteuid())} or root"
        raise SecretError(f"{path} belongs to {account(facts.st_uid)}, who can change it", hint=hint)
    if facts.st_mode & (stat.S_IRWXO | stat.S_IRWXG):
        mode = stat.S_IMODE(facts.st_mode)
        who = "everyone" if mode & stat.S_IRWXO else "its group"
        raise SecretError(f"{path} has mode {mode:04o}: {who} can read or change it", hint=f"chmod 0600 {path}")


def _from_command(command: list[str], folder: Path, environ: Mapping[str, str], timeout_seconds: float) -> bytes:
    import subprocess

    refuse_code(f"the command {shown(command[0])} of a secret")
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        hint = "correct the command, or the PATH of the fleet command"
        raise SecretError(f"cannot run {shown(command[0])}: {error.strerror}", hint=hint) from error
    with process:
        try:
            output, complaint = process.communicate(timeout=timeout_seconds)
        except BaseException as error:
            _end_session(process.pid)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            hint = f"it may take {timeout_seconds:g} s; does it wait for input?"
            raise SecretError(f"{shown(command[0])} gave no answer in time", hint=hint) from error
    if process.returncode != 0:
        how = f"exit {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
        lines = len(complaint.splitlines())  # they may hold what the command knows, and a log keeps them
        said = f"it wrote {counted(lines, 'line')} of errors" if lines else "it wrote no errors"
        raise SecretError(f"{shown(command[0])} failed: {how}", hint=f"{said}: run it by hand to read them")
    return output


def _end_session(pid: int) -> None:
    """Kill a command and everything it started. It is not reaped yet, so its pid is still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
