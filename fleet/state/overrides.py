"""Live exceptions to a manifest, kept until they end: who made them, why, and until when."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fleet.core.decode import decoded
from fleet.core.desired import group_of
from fleet.core.text.format import one_line
from fleet.state.files import damaged, read_kept, remove_kept, write_whole

if TYPE_CHECKING:
    from fleet.core.expand.facts import Overrides

Kind = Literal["replicas", "paused", "drained"]
_HINT = "fix the file by hand, or remove it: then the manifest alone applies"
KINDS: tuple[Kind, ...] = ("replicas", "paused", "drained")

_HEAD = """\
# Live exceptions to the manifest of fleet {fleet}. Written by `fleet scale --live`, `fleet pause` and `fleet drain`;
# `fleet resume` ends them.
"""


@dataclass(frozen=True, slots=True)
class Override:
    """One exception. ``target`` is a group, or a replica (drained only); ``until`` None: until it is undone."""

    kind: Kind
    target: str
    at: float
    by: str
    reason: str = ""
    until: float | None = None
    replicas: int | None = None

    def holds(self, now: float) -> bool:
        """Whether it has not ended."""
        return self.until is None or now < self.until

    def __str__(self) -> str:
        what = {"replicas": f"{self.replicas} replicas", "paused": "paused", "drained": "drained"}[self.kind]
        until = f" until {moment(self.until)}" if self.until is not None else ""
        reason = f": {self.reason}" if self.reason else ""
        return one_line(f"{self.target} {what}{until}, by {self.by}{reason}")


def read(path: Path) -> tuple[Override, ...]:
    """Every exception in the file, ended ones included. Raises Damaged."""
    text = read_kept(path, hint=_HINT)
    if text is None:
        return ()
    import yaml

    from fleet.core.manifest.tree import Findings, Source
    from fleet.core.manifest.yaml_reader import load

    if load(Source(str(path), text), Findings()) is None:  # within the limits of every YAML that is read
        raise damaged(path, "it is no YAML that fleet reads", hint=_HINT)
    try:
        rows = yaml.safe_load(text)
        if not rows or not isinstance(rows, list):  # without exceptions there is no file
            raise TypeError("it holds no list of exceptions")
        return tuple(_override(row) for row in rows)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise damaged(path, error, hint=_HINT) from error


def write(path: Path, overrides: Sequence[Override], *, fleet: str, now: float) -> None:
    """Write those that have not ended; without any, remove the file."""
    rows = [_row(one) for one in overrides if one.holds(now)]
    if not rows:
        remove_kept(path)
        return
    import yaml

    text = yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=120)
    write_whole(path, _HEAD.format(fleet=fleet) + text)


def added(overrides: Iterable[Override], *new: Override) -> tuple[Override, ...]:
    """All, with these added; each replaces an earlier one of its kind for its target."""
    replaced = {(one.kind, one.target) for one in new}
    return (*(one for one in overrides if (one.kind, one.target) not in replaced), *new)


def ended(
    overrides: Iterable[Override], targets: Collection[str], *, kinds: Collection[Kind] = KINDS
) -> tuple[Override, ...]:
    """All but those for these targets; for a group, those of its replicas are removed too."""
    return tuple(one for one in overrides if one.kind not in kinds or not _concerns(one, targets))


def in_force(overrides: Iterable[Override], *, now: float) -> Overrides:
    """As the planner reads them."""
    from fleet.core.expand.facts import Overrides

    live = [one for one in overrides if one.holds(now)]
    return Overrides(
        replicas={one.target: one.replicas for one in live if one.kind == "replicas" and one.replicas is not None},
        paused=frozenset(one.target for one in live if one.kind == "paused"),
        drained=frozenset(one.target for one in live if one.kind == "drained"),
        reasons={one.target: str(one) for one in live},
    )


def moment(seconds: float) -> str:
    """``2026-11-21T05:04:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _concerns(override: Override, targets: Collection[str]) -> bool:
    return override.target in targets or group_of(override.target) in targets


def _row(override: Override) -> dict[str, Any]:
    row = {key: value for key, value in asdict(override).items() if value not in (None, "")}
    return {**row, **{key: moment(row[key]) for key in ("at", "until") if key in row}}


def _override(row: dict[str, Any]) -> Override:
    values = dict(row)
    for key in ("at", "until"):
        if values.get(key) is not None:
            values[key] = _seconds(values[key])
    return decoded(Override, values)


def _seconds(value: Any) -> float:
    """YAML reads an unquoted time as a datetime; a person may write either."""
    when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
