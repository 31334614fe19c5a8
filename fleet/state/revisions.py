"""The manifests that were applied to a fleet with what they resolved to, one file per revision.

Kept are the newest fifty that became ready, and apart from them the newest twenty others: a manifest that fails once a
minute must not push out what a fleet can go back to.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fleet.core.decode import decoded
from fleet.core.expand.facts import Facts
from fleet.errors import FleetError, UsageError
from fleet.state.files import damaged, read_kept_json, write_whole

KEPT_REVISIONS = 50
_HINT = "apply the manifest itself, or `fleet rollback --to` a revision that `fleet history` shows"
KEPT_OTHERS = 20
Outcome = Literal["", "good", "failed"]
_NAME = r"(\d{4,})\.json"


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
    """One applied manifest: merged, with the environment's values filled in and without any declared secret's value.

    facts: what it resolved to on this machine: paths behind links, what apps said, fingerprints of secrets, the commit;
    None for one that an earlier version of fleet wrote.  outcome: good once it became ready whole, failed where its
    rollout failed; else nothing is known, because it is under way or was cut short.  failure: why it failed.
    """

    number: int
    at: float
    by: str
    digest: str
    message: str
    origin: Origin
    manifest: Mapping[str, Any]
    facts: Facts | None = None
    outcome: Outcome = ""
    failure: str = ""

    @property
    def is_good(self) -> bool:
        """It can be gone back to. One of an earlier version, which kept no outcome, is believed to have worked."""
        return self.outcome == "good" or (self.facts is None and not self.outcome)

    def differs(self, other: Revision) -> bool:
        """Whether going from one to the other changes what is written or where it leads. Neither values of secrets nor
        a commit can be gone back to, so these do not count."""
        return _content(self) != _content(other)


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
        return sorted(int(found[1]) for name in names if (found := re.fullmatch(_NAME, name)))

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

    def record(
        self, manifest: Mapping[str, Any], *, origin: Origin, by: str, message: str = "", facts: Facts | None = None
    ) -> Revision:
        """Keep a manifest; the newest revision itself when nothing changed since."""
        digest = digest_of(manifest, origin, facts)
        numbers = self.numbers()
        latest = self._readable(numbers[-1]) if numbers else None
        if latest is not None and latest.digest == digest:
            return latest
        number = (numbers or [0])[-1] + 1
        revision = Revision(number, round(self._now(), 3), by, digest, message, origin, manifest, facts)
        self._write(revision)
        self._drop_old()
        return revision

    def conclude(self, number: int, outcome: Outcome, *, failure: str = "") -> None:
        """Keep how the rollout of a revision ended; one that is not kept any more stays so."""
        revision = self._readable(number)
        if revision is not None and (revision.outcome, revision.failure) != (outcome, failure):
            self._write(replace(revision, outcome=outcome, failure=failure))
            self._drop_old()

    def failed_before(self, manifest: Mapping[str, Any], *, origin: Origin, facts: Facts) -> Revision | None:
        """The newest revision of exactly this content, if its rollout failed."""
        digest = digest_of(manifest, origin, facts)
        same = next((one for one in reversed(self.all()) if one.digest == digest), None)
        return same if same is not None and same.outcome == "failed" else None

    def last_good(self, *, before: int) -> Revision | None:
        """The newest revision that became ready whole and differs from the one numbered ``before``; None for none."""
        current = self._readable(before)
        found = (one for one in reversed(self.all()) if one.number != before and one.is_good)
        return next((one for one in found if current is None or one.differs(current)), None)

    def _drop_old(self) -> None:
        every = self.all()
        good = [one.number for one in every if one.is_good]
        others = [one.number for one in every if not one.is_good]
        for number in [*good[:-KEPT_REVISIONS], *others[:-KEPT_OTHERS]]:
            self._remove(number)

    def _remove(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def _write(self, revision: Revision) -> None:
        write_whole(self._path(revision.number), json.dumps(asdict(revision), ensure_ascii=False, indent=1))

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
            revision = revision_of(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, repr(error), hint=_HINT) from error
        if revision.number != number or not isinstance(revision.manifest, dict):
            raise damaged(path, "it is not the revision that its name says", hint=_HINT)
        return revision


def revision_of(document: dict[str, Any]) -> Revision:
    """A revision that was kept as JSON. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    origin, facts = document["origin"], document.get("facts")
    kept = Origin(origin["base"], tuple(origin["sources"]), dict(origin["git"]))
    return Revision(**{**document, "origin": kept, "facts": None if facts is None else decoded(Facts, facts)})


def digest_of(manifest: Mapping[str, Any], origin: Origin, facts: Facts | None) -> str:
    """Twelve hex digits over a manifest and what it resolved to, secrets, commit and code included."""
    pinned = [] if facts is None else [_pinned(facts), dict(facts.secrets), facts.commit, facts.code]
    text = json.dumps([manifest, origin.base, *pinned], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _content(revision: Revision) -> list[Any]:
    facts = revision.facts
    return [dict(revision.manifest), revision.origin.base, None if facts is None else _pinned(facts)]


def _pinned(facts: Facts) -> dict[str, Any]:
    """What a revision brings back: nothing of fleet's own programs, which follow the version of fleet that runs."""
    kept = ("cpus", "python", "workdir", "custom_pool", "real_paths", "apps")
    return {name: value for name, value in asdict(facts).items() if name in kept}
