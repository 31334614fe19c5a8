"""Variables that groups take from files and from the surroundings of the fleet command: ``envFrom``.

Their values travel as those of secrets do: a plan names them, a spec holds keyed fingerprints, only launch documents
hold values. Each has a key: ``inherit:NAME`` or ``file:PATH:NAME``, with the path as it is written.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the planner names keys, and needs no pydantic for it
    from fleet.core.manifest.models import Group, Manifest

BUNDLE = "envFrom"
"""The name under which all of them are handed to the controller, as one value. No secret can have it."""


def inherit_key(variable: str) -> str:
    return f"inherit:{variable}"


def file_prefix(path: str) -> str:
    """What the keys of a file's variables begin with."""
    return f"file:{path}:"


def is_key(name: str) -> bool:
    """Whether the name of a source is one of these keys: no secret has a colon in its name."""
    return ":" in name


def is_used(manifest: Manifest) -> bool:
    return any(group.env_from for group in manifest.spec.groups.values())


def keys_of(group: Group, known: Collection[str]) -> dict[str, str]:
    """Variable -> key of what the group takes, of the keys that have a value; a later source wins, env over all."""
    found: dict[str, str] = {}
    for source in group.env_from or []:
        found |= {name: inherit_key(name) for name in source.inherit or [] if inherit_key(name) in known}
        if source.file is not None:
            prefix = file_prefix(source.file)
            found |= {key.removeprefix(prefix): key for key in sorted(known) if key.startswith(prefix)}
    own = set(group.env or {}) | set(group.secret_env or {})
    return {name: key for name, key in found.items() if name not in own}
