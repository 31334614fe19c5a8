"""Gives a process to an account: its groups, its rights and what its environment says of it."""

from __future__ import annotations

import os
import pwd

from fleet.core.spec import AccountSpec

_PR_SET_NO_NEW_PRIVS = 38


def become(account: AccountSpec) -> None:
    """This process is the account's from here on, without a way back. Raises OSError, also where it did not work.

    The kernel forgets the signal at the death of the parent here: ask for it again.
    """
    os.setgroups(groups_of(account))
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    if os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3:
        raise OSError(f"this process is not {account.user}'s")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise OSError(f"{account.user} could become root again")


def groups_of(account: AccountSpec) -> list[int]:
    """Every group of the account; its own group alone for a number without a name."""
    try:
        name = pwd.getpwuid(account.uid).pw_name
    except KeyError:
        return [account.gid]
    return os.getgrouplist(name, account.gid)


def variables(uid: int) -> dict[str, str]:
    """HOME, USER and LOGNAME of an account; of a number without a name only that its home is ``/``."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return {"HOME": "/"}
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def forbid_new_privileges() -> None:
    """Nothing that this process starts can gain rights, by a setuid program for one. Raises OSError."""
    import ctypes  # every command imports this module, and few call this

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
