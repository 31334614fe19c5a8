"""Who owns which fields of an object: server-side apply as the stand-in does it.

Lists of maps with names are maps by name; every other list is one value. The real server reads from its schema which
lists are which, keeps the version of each owner's fields, and knows subresources; none of that is here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

Path = tuple[str, ...]
Owners = dict[tuple[str, str], set[Path]]
"""(manager, ``Apply`` or ``Update``) -> the paths of its fields."""
_HEAD = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
_SERVERS = {("metadata", one) for one in ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")}


class Conflict(Exception):
    """Fields that others own: (manager, path)."""

    def __init__(self, found: list[tuple[str, Path]]) -> None:
        super().__init__(found)
        self.found = found


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that a document gives, with its value; what the server writes is left out."""
    if path in _HEAD or path in _SERVERS or path[:1] == ("status",):
        return
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif _is_named(value):
        for child in value:
            yield from leaves(child, (*path, f"k:{child['name']}"))
    else:
        yield path, value


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "name" in one for one in value)


def at(value: Any, path: Path) -> Any:
    """The value of a path, None where there is none."""
    for key in path:
        value = _child(value, key)
    return value


def _child(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return next((one for one in value if isinstance(one, dict) and f"k:{one.get('name')}" == key), None)
    return value.get(key) if isinstance(value, dict) else None


def _put(target: Any, path: Path, value: Any) -> None:
    for here, following in pairwise(path):
        child = _child(target, here)
        if child is None:
            child = [] if following.startswith("k:") else {}
            _set(target, here, child)
            child = _child(target, here)
        target = child
    _set(target, path[-1], copy.deepcopy(value))


def _set(target: Any, key: str, value: Any) -> None:
    if isinstance(target, list):
        target.append({"name": key[2:], **(value if isinstance(value, dict) else {})})
    else:
        target[key] = value


def _drop(target: Any, path: Path) -> None:
    """Remove a field, and the containers that are empty without it."""
    for length in range(len(path), 0, -1):
        parent, key = at(target, path[: length - 1]), path[length - 1]
        if isinstance(parent, list):
            parent[:] = [one for one in parent if f"k:{one.get('name')}" != key]
        elif isinstance(parent, dict):
            parent.pop(key, None)
        left = at(target, path[: length - 1])
        if left not in ({}, []):
            return


def applied(
    live: dict[str, Any], owners: Owners, document: dict[str, Any], *, manager: str, force: bool
) -> dict[str, Any]:
    """The object after an apply; ``owners`` is changed. Raises Conflict."""
    new, mine = dict(leaves(document)), (manager, "Apply")
    conflicts = [
        (who[0], path)
        for who, paths in owners.items()
        if who != mine
        for path in sorted(paths & new.keys())
        if at(live, path) != new[path]
    ]
    if conflicts and not force:
        raise Conflict(conflicts)
    for other, path in conflicts:
        for who in owners:
            if who[0] == other and who != mine:
                owners[who].discard(path)
    after = copy.deepcopy(live)
    others = set().union(*(paths for who, paths in owners.items() if who != mine)) if owners else set()
    for path in owners.get(mine, set()) - new.keys() - others:
        _drop(after, path)
    for path, value in new.items():
        _put(after, path, value)
    owners[mine] = set(new)
    for who in [who for who, paths in owners.items() if not paths]:
        del owners[who]
    return after


def updated(live: dict[str, Any], owners: Owners, after: dict[str, Any], *, manager: str) -> None:
    """Note who owns what after a write that is no apply."""
    before, now = dict(leaves(live)), dict(leaves(after))
    changed = {path for path, value in now.items() if path not in before or before[path] != value}
    for paths in owners.values():
        paths -= changed | (before.keys() - now.keys())
    if changed:
        owners.setdefault((manager, "Update"), set()).update(changed)


def managed_fields(owners: Owners) -> list[dict[str, Any]]:
    """As objects have them."""
    return [
        {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": _tree(paths)}
        for (manager, operation), paths in sorted(owners.items())
    ]


def _tree(paths: set[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        inner = tree
        for key in path:
            name = f"k:{json.dumps({'name': key[2:]})}" if key.startswith("k:") else f"f:{key}"
            inner = inner.setdefault(name, {})
    return tree
