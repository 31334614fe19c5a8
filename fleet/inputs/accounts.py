"""The accounts that a manifest names for its replicas, looked up on this machine."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from fleet.core.expand.specs import kind_of
from fleet.core.manifest.models import Group, GroupRelease, Manifest
from fleet.core.spec import FLEETS_ACCOUNT, AccountSpec
from fleet.core.text.format import counted, shown
from fleet.errors import Problem, Refused
from fleet.file_access import account as account_name
from fleet.inputs.manifest import LoadedManifest
from fleet.replica.account import groups_of
from fleet.replica.shell import is_shell
from fleet.state.paths import is_home_of_account

_TRY = """for path do [ -x "$path" ] || printf '%s\\0' "$path"; done"""
_PACKAGE = Path(__file__).resolve().parent.parent
_TRY_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Accounts:
    """Group -> the account of its replicas, and that of the embedded broker. Those of fleet itself are left out."""

    groups: dict[str, AccountSpec] = field(default_factory=dict)
    broker: AccountSpec = FLEETS_ACCOUNT


class _Unusable(Exception):
    """Why an account cannot be used: the key path, what is wrong, what to do."""

    def __init__(self, path: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.path, self.message, self.hint = path, message, hint


def accounts_of(loaded: LoadedManifest) -> Accounts:
    """The account of every group. Raises Refused, with the place in the manifest, for one that cannot be used here."""
    try:
        return _accounts(loaded.manifest)
    except _Unusable as error:
        raise Refused(str(_problem(loaded, error)), hint=error.hint) from None


def account_problems(loaded: LoadedManifest) -> tuple[Problem, ...]:
    """What ``plan`` and ``apply`` on this machine, by this account, would refuse about accounts; at most one."""
    try:
        _accounts(loaded.manifest)
    except _Unusable as error:
        return (_problem(loaded, error, hint=error.hint),)
    return ()


def root_warning(loaded: LoadedManifest) -> str:
    """What to say where replicas run as root; ``""`` where none does."""
    if os.geteuid() != 0:
        return ""
    try:
        named = _accounts(loaded.manifest).groups
    except _Unusable:
        return ""
    if not (bare := [name for name in sorted(loaded.manifest.spec.groups) if name not in named]):
        return ""
    groups = ", ".join(bare[:5]) + (" …" if len(bare) > 5 else "")
    return (
        f"{counted(len(bare), 'group')} would run as root ({groups}): a task can change anything here;"
        " name an account: `spec: {user: …}`"
    )


def _problem(loaded: LoadedManifest, error: _Unusable, *, hint: str = "") -> Problem:
    if loaded.positions is None:
        return Problem(loaded.name, 0, 0, error.path, error.message, hint)
    return loaded.positions.problem(error.path, error.message, hint)


def _accounts(manifest: Manifest) -> Accounts:
    spec = manifest.spec
    everywhere = _resolved(spec.user, spec.group, "spec")
    found = {}
    for name, group in spec.groups.items():
        if group.user is None and group.group is None:
            account = everywhere
        else:
            its_group = group.group or (spec.group if group.user is None else None)
            account = _resolved(group.user or spec.user, its_group, f"spec.groups.{name}")
        if account != FLEETS_ACCOUNT:
            found[name] = account
        if spec.broker == "embedded" and kind_of(group) != "command" and _uid(account) != _uid(everywhere):
            _refuse_mixed(name, _name(account), _name(everywhere))
    return Accounts(found, everywhere if spec.broker == "embedded" else FLEETS_ACCOUNT)


def _refuse_mixed(group: str, its: str, brokers: str) -> None:
    """Whoever reads and writes a broker can run every task of every group at it."""
    message = f"the group runs as {its} and takes its tasks from the embedded broker, which runs as {brokers}"
    hint = f"write `spec: {{user: …}}` for all of them, or name a broker of your own that lets {its} in"
    raise _Unusable(f"spec.groups.{group}", message, hint)


def _uid(account: AccountSpec) -> int:
    return os.geteuid() if account == FLEETS_ACCOUNT else account.uid


def _name(account: AccountSpec) -> str:
    return shown(account.user or account_name(os.geteuid()))


def _resolved(user: str | None, group: str | None, where: str) -> AccountSpec:
    """The account, or that of fleet where it is the same."""
    name, uid, gid = _user(user, f"{where}.user")
    if group is not None:
        gid = _group(group, f"{where}.group")
    elif gid is None:
        message = f"{shown(name)} is not in the list of accounts, so its group is not known"
        raise _Unusable(f"{where}.user", message, "write the number of its group as well: group: …")
    if uid == os.geteuid() and gid in {os.getegid(), *_primary_group(uid)}:
        return FLEETS_ACCOUNT
    if os.geteuid() != 0:
        field_, wanted = ("user", name) if uid != os.geteuid() else ("group", group)
        message = f"is {shown(wanted)}, and fleet runs as {account_name(os.geteuid())}: only root can change that"
        hint = f"run fleet as root, or as {shown(name)}, or leave the field out"
        raise _Unusable(f"{where}.{field_}", message, hint)
    if uid == 0:
        message = f"{shown(group)} is another group than root's, for replicas of root"
        raise _Unusable(f"{where}.group", message, "name an account as well: user: …")
    return AccountSpec(name, uid, gid)


def _user(user: str | None, where: str) -> tuple[str, int, int | None]:
    """Name, uid and, where it is known, gid."""
    if user is None:
        return account_name(os.geteuid()), os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        return entry.pw_name, entry.pw_uid, entry.pw_gid
    except (KeyError, OverflowError):
        if user.isdigit() and int(user) < 1 << 32 - 1:
            return user, int(user), None
        message = f"there is no account {shown(user)} on this machine"
        raise _Unusable(where, message, f"make it (`useradd --system {user}`), or name another") from None


def _group(group: str, where: str) -> int:
    try:
        return grp.getgrgid(int(group)).gr_gid if group.isdigit() else grp.getgrnam(group).gr_gid
    except (KeyError, OverflowError):
        if group.isdigit() and int(group) < 1 << 32 - 1:
            return int(group)
        message = f"there is no group {shown(group)} on this machine"
        raise _Unusable(where, message, f"make it (`groupadd --system {group}`), or name another") from None


def _primary_group(uid: int) -> Iterator[int]:
    try:
        yield pwd.getpwuid(uid).pw_gid
    except KeyError:
        return


def check_access(
    accounts: Accounts, manifest: Manifest, *, workdir: str, python: str, real_paths: Mapping[str, str], root: Path
) -> None:
    """Raise Refused where an account could not enter or run what its replicas need. Runs nothing of the manifest.

    workdir, python: of groups that have none of their own.  real_paths: behind the links of those that have.
    root: the fleet's folder, where the files of such replicas are.
    """
    for name, account in accounts.groups.items():
        group = manifest.spec.groups[name]
        own = group.release or GroupRelease.empty()
        where, which = real_paths.get(own.workdir or "", workdir), real_paths.get(own.python or "", python)
        needs = _needs(group, workdir=where, python=which)
        for path in _closed(account, tuple(needs)):
            message = f"group {name}: {account.user} cannot use {needs[path]}, {path}"
            raise Refused(message, hint="let it in (chmod, chown), or put it where it can: /srv, /opt, not below /root")
    way = str(_nearest(root.parent))
    for account in {*accounts.groups.values(), accounts.broker} - {FLEETS_ACCOUNT}:
        if _closed(account, (way,)):
            message = f"{account.user} cannot pass through {way} to the files of its replicas"
            raise Refused(message, hint="set FLEET_HOME to a folder below /var/lib, or let others pass: chmod o+x")


def _needs(group: Group, *, workdir: str, python: str) -> dict[str, str]:
    """Path -> what it is."""
    if kind_of(group) != "command":
        return {workdir: "the working folder", python: "the interpreter", str(_PACKAGE): "the package of fleet"}
    if _is_kept(group):
        return {workdir: "the working folder", sys.executable: "fleet's interpreter", str(_PACKAGE): "its package"}
    return {workdir: "the working folder"}


def _is_kept(group: Group) -> bool:
    """Whether a program of fleet's stays in front of the command."""
    policy = (group.restart and group.restart.policy) or ("never" if group.job else "always")
    return is_shell(tuple(group.command or ())) or bool(group.stop and group.stop.group) or policy != "always"


def _nearest(home: Path) -> Path:
    """What must let accounts pass: FLEET_HOME itself lets them as soon as it has to, if it is fleet's own."""
    if not is_home_of_account(home) and (not home.exists() or not home.stat().st_mode & 0o077):
        home = home.parent
    return next(place for place in (home, *home.parents) if place.exists())


@lru_cache(maxsize=64)
def _closed(account: AccountSpec, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the folders and programs that the account cannot enter or run. The kernel is asked, as the account."""
    import subprocess

    try:
        done = subprocess.run(
            ["/bin/sh", "-c", _TRY, "sh", *(path for path in paths if os.path.exists(path))],
            cwd="/",
            env={},
            user=account.uid,
            group=account.gid,
            extra_groups=groups_of(account),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRY_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        hint = "does this container have that account, and does root have its rights?"
        raise Refused(f"cannot start a process of {account.user}: {error}", hint=hint) from error
    return tuple(os.fsdecode(path) for path in done.stdout.split(b"\0") if path)
