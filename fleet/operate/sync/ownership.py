"""Whose a fleet is: one source, a repository or a set of files. Another one must say that it takes the fleet over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fleet.errors import Damaged, Refused
from fleet.state.audit import who
from fleet.state.files import damaged, read_kept_json, write_whole

if TYPE_CHECKING:
    from fleet.operate.local_fleet import LocalFleet

Kind = Literal["source", "files"]
FILE = "owner.json"
_HINT = "if the fleet is this source's, say --adopt: then it is written again"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who decides what a fleet is. ``name``: of the FleetSource.  address: repository and ref, or the first file."""

    kind: Kind
    name: str = ""
    address: str = ""
    files: tuple[str, ...] = ()
    by: str = ""
    since: float = 0.0

    def __str__(self) -> str:
        return f"the source {self.name!r} ({self.address})" if self.kind == "source" else ", ".join(self.files)

    def is_same_as(self, other: Owner) -> bool:
        """Whether both are one owner: the same source, or sets of files that share one."""
        if self.kind != other.kind:
            return False
        if self.kind == "source":
            return self.name == other.name
        return bool(set(self.files) & set(other.files)) or self.files == other.files


def of_files(files: Sequence[str]) -> Owner:
    """The owner that manifest files make; without any it is the standard input."""
    named = tuple(files) or ("the standard input",)
    return Owner("files", address=named[0], files=named)


def of_source(name: str, address: str) -> Owner:
    """The owner that a FleetSource makes."""
    return Owner("source", name=name, address=address)


def refuse_other(fleet: str, owner: Owner | None, claimant: Owner) -> None:
    """Raise Refused where the fleet is another's."""
    if owner is None or owner.is_same_as(claimant):
        return
    if owner.kind == "source":
        hint = (
            "commit the change there; or say `--suspend 1h --reason …`, and the source takes the fleet back then;"
            " or `--adopt` to take it over for good"
        )
        raise Refused(f"fleet {fleet!r} belongs to {owner}: the next look of its source would undo this", hint=hint)
    hint = "two manifests with one name? If this one is to take over: --adopt"
    raise Refused(f"fleet {fleet!r} belongs to {owner}, and this is {claimant}", hint=hint)


def read(state: Path) -> Owner | None:
    """The owner that is written in a fleet's state folder, None where nobody is yet. Raises Damaged."""
    path = state / FILE
    document = read_kept_json(path, hint=_HINT)
    if document is None:
        return None
    try:
        owner = Owner(**{**document, "files": tuple(document["files"])})
        if owner.kind not in ("source", "files"):
            raise ValueError(f"unknown kind {owner.kind!r}")
        return owner
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, repr(error), hint=_HINT) from error


def write(state: Path, owner: Owner) -> None:
    """Make somebody the owner."""
    write_whole(state / FILE, json.dumps(asdict(owner), ensure_ascii=False))


def owner_of(local: LocalFleet) -> Owner | None:
    """Whose the fleet is: as written, else the files whose manifest was applied last.

    None before any apply, and for a fleet of files that was taken down: then the name is free; and where neither that
    file nor a manifest that can be read is there. Raises Damaged for the file: another's fleet is not to be taken.
    """
    written = read(local.places.state)
    try:
        applied = local.applied()
    except Damaged:  # what stops a fleet must work then, too; the owner is in a file of its own
        applied = None
    if applied is not None and applied.down and (written is None or written.kind == "files"):
        return None
    if written is not None:
        return written
    try:
        latest = local.history.latest()
    except Damaged:  # the next apply writes another
        latest = None
    return None if latest is None else of_files(latest.origin.sources)


def make_owner(local: LocalFleet, owner: Owner) -> None:
    """From now on the fleet is this one's."""
    write(local.places.state, replace(owner, by=who(), since=round(local.now(), 3)))
