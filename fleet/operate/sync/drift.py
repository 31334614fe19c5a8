"""Where what runs differs from a manifest, group by group. Nothing is planned, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fleet.core.desired import RESERVED_PREFIX, Desired, DesiredGroup
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.planning.assignment import assign
from fleet.core.planning.spec_diff import changes
from fleet.core.text.format import counted, listed

Kind = Literal["missing", "extra", "changed", "state", "stray"]
SIGNS = {"missing": "+", "extra": "-", "changed": "~", "state": "!", "stray": "!"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the manifest says. ``replicas``: whom it concerns, empty for the group as a whole."""

    group: str
    kind: Kind
    what: str
    replicas: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {"group": self.group, "kind": self.kind, "what": self.what, "replicas": list(self.replicas)}


def differences(desired: Desired, observed: Observed) -> tuple[Difference, ...]:
    """All of them, by group."""
    seen: dict[str, list[ObservedReplica]] = {}
    for one in observed.replicas.values():
        seen.setdefault(one.group, []).append(one)
    found: list[Difference] = []
    for name in sorted({*desired.groups, *seen}):
        there = sorted(seen.get(name, []), key=lambda one: one.index)
        group = desired.groups.get(name)
        found += _of_group(group, there) if group is not None else [_extra(name, there)]
    strays = sorted(observed.strays, key=lambda one: one.pid)
    found += [Difference("", "stray", f"pid {one.pid} is a {one.kind} of {one.replica}") for one in strays]
    return tuple(found)


def _extra(name: str, there: list[ObservedReplica]) -> Difference:
    names = tuple(one.name for one in there)
    return Difference(name, "extra", f"the manifest has no such group: {counted(len(there), 'replica')}", names)


def _of_group(group: DesiredGroup, there: list[ObservedReplica]) -> Iterator[Difference]:
    wanted = {one.name: one for one in assign(group, there).wanted.values()}
    known = {one.name: one for one in there}
    if gone := tuple(name for name in wanted if name not in known):
        yield Difference(group.name, "missing", f"{len(there)} of {counted(group.replicas, 'replica')} there", gone)
    if over := tuple(name for name in known if name not in wanted):
        what = f"{counted(len(there), 'replica')} there, {group.replicas} wanted"
        yield Difference(group.name, "extra", what, over)
    said: dict[str, list[str]] = {}
    for name in wanted.keys() & known.keys():
        old, new = known[name], wanted[name]
        if old.spec is None and old.digest != new.digest:
            said.setdefault(f"spec {old.digest or 'unknown'} -> {new.digest}", []).append(name)
        for change in changes(old.spec, new.spec) if old.spec is not None else ():
            said.setdefault(change, []).append(name)
    for what, names in said.items():
        yield Difference(group.name, "changed", what, _in_order(names))
    for one in there:
        if one.state in {State.STOPPED, State.FAILED, State.UNKNOWN}:
            note = f" ({one.note})" if one.note else ""
            yield Difference(group.name, "state", f"{one.state}{note}", (one.name,))


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: int(name.rpartition(".")[2])))


def text(fleet: str, found: tuple[Difference, ...]) -> str:
    """One line each."""
    own = [one for one in found if not one.group.startswith(RESERVED_PREFIX)]
    if not own:
        return f"fleet {fleet}: what runs is as the manifest says\n"
    width = max(len(one.group) for one in own)
    return "\n".join(_line(one, width) for one in own) + "\n"


def _line(one: Difference, width: int) -> str:
    names = f"  ({listed(one.replicas, most=4)})" if one.replicas else ""
    return f"{SIGNS[one.kind]} {one.group:<{width}}  {one.what}{names}"


def markdown(fleet: str, found: tuple[Difference, ...]) -> str:
    """For a report or a comment."""
    return f"### fleet diff: {fleet}\n\n```diff\n{text(fleet, found)}```\n"
