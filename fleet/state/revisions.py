"""The manifests that were applied to a fleet, one file per revision, the newest fifty of them."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fleet.errors import FleetError, UsageError
from fleet.state.files import damaged, read_kept_json, write_whole

KEPT_REVISIONS = 50
_HINT = "apply the manifest itself, or `fleet rollback --to` a revision that `fleet history` shows"
_NAME = re.compile(r"(\d{4,})\.json")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a manifest came from.

    base: the folder that relative paths in it start from.  sources: the files that were merged, absolute.
    git: sha and branch of the checkout around them.
    """

    base: str
    sources: tuple[str, ...] = ()
    git: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revision:
    """One applied manifest: merged, with the environment's values filled in and without any declared secret's value."""

    number: int
    at: float
    by: str
    digest: str
    message: str
    origin: Origin
    manifest: Mapping[str, Any]


class History:
    """The revisions of one fleet."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._now = now

    def numbers(self) -> list[int]:
        """The numbers that are kept, oldest first."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise damaged(self.folder, error.strerror, hint="move it away, and apply the manifest again") from error
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def latest(self) -> Revision | None:
        """The newest revision, or None. Raises Damaged where it cannot be read: an older one would be a guess."""
        numbers = self.numbers()
        return self._read(numbers[-1]) if numbers else None

    def get(self, number: int) -> Revision:
        """One revision. Raises UsageError where there is none with that number."""
        revision = self._read(number)
        if revision is None:
            kept = self.numbers()
            hint = f"kept are {kept[0]} to {kept[-1]}: see `fleet history`" if kept else "nothing was applied yet"
            raise UsageError(f"there is no revision {number}", hint=hint)
        return revision

    def all(self) -> list[Revision]:
        """Every revision that can be read, oldest first."""
        return [revision for number in self.numbers() if (revision := self._readable(number))]

    def damaged(self) -> list[int]:
        """The numbers of those that cannot be read, oldest first."""
        return [number for number in self.numbers() if self._readable(number) is None]

    def record(self, manifest: Mapping[str, Any], *, origin: Origin, by: str, message: str = "") -> Revision:
        """Keep a manifest; the newest revision itself when nothing changed since."""
        digest = _digest(manifest, origin)
        numbers = self.numbers()
        latest = self._readable(numbers[-1]) if numbers else None
        if latest is not None and latest.digest == digest:
            return latest
        number = (self.numbers() or [0])[-1] + 1
        revision = Revision(number, round(self._now(), 3), by, digest, message, origin, manifest)
        write_whole(self._path(number), json.dumps(asdict(revision), ensure_ascii=False, indent=1))
        self._drop_old()
        return revision

    def _drop_old(self) -> None:
        for number in self.numbers()[:-KEPT_REVISIONS]:
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.json"

    def _readable(self, number: int) -> Revision | None:
        """A broken file must not keep the next apply from writing a good one."""
        try:
            return self._read(number)
        except FleetError:
            return None

    def _read(self, number: int) -> Revision | None:
        path = self._path(number)
        document = read_kept_json(path, hint=_HINT)
        if document is None:
            return None
        try:
            origin = document["origin"]
            document["origin"] = Origin(origin["base"], tuple(origin["sources"]), dict(origin["git"]))
            revision = Revision(**document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, repr(error), hint=_HINT) from error
        if revision.number != number or not isinstance(revision.manifest, dict):
            raise damaged(path, "it is not the revision that its name says", hint=_HINT)
        return revision


def _digest(manifest: Mapping[str, Any], origin: Origin) -> str:
    text = json.dumps([manifest, origin.base], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
