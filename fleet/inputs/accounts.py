"""The accounts that a manifest names for its replicas, compared with the one that runs fleet."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator

from fleet.core.manifest.models import Manifest
from fleet.core.text.format import shown
from fleet.errors import Refused


def check_accounts(manifest: Manifest) -> None:
    """Replicas run under the account of fleet, so a manifest that names another is not carried out. Raises Refused."""
    user, group = _user(os.geteuid()), _group(os.getegid())
    for where, wanted, have in _named(manifest, user=user, group=group):
        if wanted not in have:
            raise Refused(
                f"{where} is {shown(wanted)}, and fleet runs as {have[0]}: replicas run under the account of fleet",
                hint=f"run fleet as {shown(wanted)}, or leave the field out",
            )


def _named(
    manifest: Manifest, *, user: tuple[str, str], group: tuple[str, str]
) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Where an account is named, its name, and the names of fleet's own."""
    spec = manifest.spec
    said = [("spec", spec.user, spec.group)]
    said += [(f"spec.groups.{name}", one.user, one.group) for name, one in spec.groups.items()]
    for where, its_user, its_group in said:
        if its_user is not None:
            yield f"{where}.user", its_user, user
        if its_group is not None:
            yield f"{where}.group", its_group, group


def _user(number: int) -> tuple[str, str]:
    try:
        return pwd.getpwuid(number).pw_name, str(number)
    except KeyError:
        return str(number), str(number)


def _group(number: int) -> tuple[str, str]:
    try:
        return grp.getgrgid(number).gr_name, str(number)
    except KeyError:
        return str(number), str(number)
