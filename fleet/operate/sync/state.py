"""What is kept about a source: one small file for each loop, one for what people ordered, and where they lie."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fleet.errors import FleetError, UsageError
from fleet.file_access import KEPT_BYTES, SMALL_BYTES, read_file
from fleet.operate.sync.conditions import FETCHING, RECONCILING, Conditions, Stage
from fleet.operate.sync.conditions import from_json as conditions_from_json
from fleet.operate.sync.pacing import Heals
from fleet.state.files import write_whole
from fleet.state.lock import Lock
from fleet.state.paths import Places

FORMAT = 1
SOURCES = ".sources"
"""Below FLEET_HOME. No fleet can have this name."""


@dataclass(frozen=True, slots=True)
class SourcePlaces:
    """The folder of one source, and the paths in it."""

    root: Path

    @classmethod
    def of(cls, home: Path, name: str) -> SourcePlaces:
        """The places of the named source."""
        return cls(home.absolute() / SOURCES / name)

    @property
    def name(self) -> str:
        """The source's name."""
        return self.root.name

    @property
    def repository(self) -> Path:
        """What was fetched: a bare git repository."""
        return self.root / "repository.git"

    @property
    def checkouts(self) -> Path:
        """One folder per commit."""
        return self.root / "checkouts"

    @property
    def releases(self) -> Path:
        """One folder per version of the code, each with a virtual environment."""
        return self.root / "releases"

    @property
    def keys(self) -> Path:
        """GnuPG homes that hold the allowed keys only."""
        return self.root / "keys"

    @property
    def fetched(self) -> Path:
        """What the loop that fetches keeps."""
        return self.root / "fetched.json"

    @property
    def reconciled(self) -> Path:
        """What the loop that changes the fleet keeps."""
        return self.root / "reconciled.json"

    @property
    def orders(self) -> Path:
        """What people ordered: a suspension, an approval."""
        return self.root / "orders.json"

    @property
    def reported(self) -> Path:
        """What others were told last."""
        return self.root / "reported.json"

    @property
    def definition(self) -> Path:
        """Where the source's own file is."""
        return self.root / "definition.json"

    @property
    def nudge(self) -> Path:
        """Touched to ask for a look now."""
        return self.root / "nudge"

    @property
    def lock_file(self) -> Path:
        """Held by the one process that follows the source."""
        return self.root / "lock"

    def lock(self, *, wait_seconds: float = 0.0) -> Lock:
        """Held as long as the source is followed."""
        hint = f"`fleet sync status {self.name}` shows what it does; `fleet sync now {self.name}` makes it look"
        return Lock(
            Places(self.root),
            command="fleet sync run",
            wait_seconds=wait_seconds,
            path=self.lock_file,
            taken="(a source) is followed by",
            hint=hint,
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """How far fetching got.

    follows: address, ref and paths this speaks of.  seen: the commit the remote has.  accepted: the last one that was
    verified; history must go on from it.  good: the last one whose manifest holds, and ``fleet`` the name in it.
    problems: of the manifest of ``seen``, as ``validate -o json`` has them.
    """

    follows: str = ""
    seen: str = ""
    accepted: str = ""
    good: str = ""
    fleet: str = ""
    signer: str = ""
    subject: str = ""
    problems: tuple[Mapping[str, Any], ...] = ()
    failures: int = 0
    looked_at: float = 0.0
    conditions: Conditions = field(default_factory=lambda: Conditions(FETCHING))


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How far the fleet got.

    attempted, applied: commits, in Flux's words.  base: the commit in whose checkout relative paths start.  failed: the
    commit whose rollout failed; it is not tried again unchanged.  is_paused: it was not rolled back.  plan: what was
    planned last, as ``plan -o json``.
    """

    fleet: str = ""
    attempted: str = ""
    applied: str = ""
    applied_at: float = 0.0
    base: str = ""
    failed: str = ""
    is_paused: bool = False
    previewed: str = ""
    revision: int = 0
    plan: Mapping[str, Any] = field(default_factory=dict)
    plan_text: str = ""
    heals: Heals = field(default_factory=Heals)
    failures: int = 0
    looked_at: float = 0.0
    conditions: Conditions = field(default_factory=lambda: Conditions(RECONCILING))


@dataclass(frozen=True, slots=True)
class Orders:
    """What people ordered by hand.

    approved: a commit that may be applied whatever the mode or the hour.  accepted: one that need not go on from what
    was accepted before.
    """

    suspended_until: float = 0.0
    suspend_reason: str = ""
    suspended_by: str = ""
    approved: str = ""
    approved_by: str = ""
    accepted: str = ""
    accepted_by: str = ""


_State = TypeVar("_State", Fetched, Reconciled, Orders)


def read_fetched(places: SourcePlaces) -> Fetched:
    """What the loop that fetches kept, empty before its first look. Raises FleetError for a damaged file."""
    return _read(places.fetched, Fetched, FETCHING)


def read_reconciled(places: SourcePlaces) -> Reconciled:
    """What the loop that changes the fleet kept. Raises FleetError for a damaged file."""
    return _read(places.reconciled, Reconciled, RECONCILING)


def read_orders(places: SourcePlaces) -> Orders:
    """What people ordered. Raises FleetError for a damaged file."""
    return _read(places.orders, Orders, ())


def write(path: Path, state: Fetched | Reconciled | Orders) -> None:
    """Keep it: the old file or the new one, whatever happens meanwhile."""
    values = {one.name: getattr(state, one.name) for one in dataclasses.fields(state)}
    if "conditions" in values:
        values["conditions"] = values["conditions"].to_json()
    if "heals" in values:
        values["heals"] = dataclasses.asdict(values["heals"])
    write_whole(path, json.dumps({"format": FORMAT, **values}, ensure_ascii=False, indent=1))


def _read(path: Path, kind: type[_State], stages: tuple[Stage, ...]) -> _State:
    try:
        document = json.loads(read_file(path, limit_bytes=KEPT_BYTES, own=True))
        if document.pop("format") != FORMAT:
            raise ValueError("it is of another version")
        return kind(**_values(document, kind, stages))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "move the file away; the next look writes it again, and takes what the repository has then as it is"
        raise FleetError(f"{path} cannot be read: {error}", hint=hint) from error


def _values(document: dict[str, Any], kind: type[_State], stages: tuple[Stage, ...]) -> dict[str, Any]:
    values = dict(document)
    default = kind()
    for one in dataclasses.fields(kind):
        if one.name not in values:
            raise KeyError(one.name)
        expected = type(getattr(default, one.name))
        if one.name == "conditions":
            values[one.name] = conditions_from_json(values[one.name], stages)
        elif one.name == "heals":
            values[one.name] = Heals(
                str(values[one.name]["what"]), tuple(float(at) for at in values[one.name]["times"])
            )
        elif one.name == "problems":
            values[one.name] = tuple(dict(row) for row in values[one.name])
        elif expected is float:
            values[one.name] = float(values[one.name])
        elif not isinstance(values[one.name], expected):
            raise TypeError(f"{one.name} is {values[one.name]!r}")
    return values


def keep_definition(places: SourcePlaces, file: Path) -> None:
    """Remember where the source's own file is, so that its name is enough from now on."""
    write_whole(places.definition, json.dumps({"format": FORMAT, "file": str(file.absolute())}))


def definition_of(places: SourcePlaces) -> Path:
    """Where the source's own file is. Raises UsageError for a source that was never followed."""
    try:
        return Path(json.loads(read_file(places.definition, limit_bytes=SMALL_BYTES, own=True))["file"])
    except FileNotFoundError:
        known = ", ".join(known_sources(places.root.parent.parent))
        hint = f"known: {known}" if known else "name its file: fleet sync run SOURCE.yaml"
        raise UsageError(f"there is no source {places.name!r} in {places.root.parent}", hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FleetError(f"{places.definition} cannot be read: {error}", hint="name the source's file once") from error


def known_sources(home: Path) -> list[str]:
    """The sources that were followed under a home."""
    try:
        return sorted(path.name for path in (home / SOURCES).iterdir() if path.is_dir())
    except OSError:
        return []
