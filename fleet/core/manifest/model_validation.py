"""Is every key known and every single value of its kind? pydantic's findings as sentences for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from fleet.core.manifest.field_paths import aliases, as_model, model_at, model_in
from fleet.core.manifest.models import API_VERSION, KIND, Manifest, field_named
from fleet.core.manifest.tree import Path, path_text
from fleet.core.manifest.validation_messages import PATTERN_HINTS, SENTENCES, InvalidValue, other
from fleet.core.text.format import shown
from fleet.core.text.suggest import bare, closest, did_you_mean


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong with the shape.

    meant: the path that was probably meant, when a key is unknown.  wants_number: a number was expected.
    """

    path: Path
    message: str
    hint: str = ""
    meant: Path | None = None
    is_missing: bool = False
    wants_number: bool = False


def validate(document: Mapping[str, Any], *, most_hints: int = 0) -> tuple[Manifest | None, list[Complaint]]:
    """The manifest a plain document describes, or what is wrong with it.

    most_hints: how many unknown fields are compared with all known ones, which takes its time.
    """
    if not Manifest.__pydantic_complete__:
        _compile()
    try:
        return Manifest.model_validate(document, by_alias=True, by_name=False), []
    except ValidationError as error:
        items = error.errors(include_url=False)
        return None, [_complaint(item, guess=index < most_hints) for index, item in enumerate(items)]


def _compile() -> None:
    """Compile the validator, without pydantic's search for plug-ins in the metadata of every installed package: none
    is for a manifest. Its own switch is a variable of the environment, which commands and workers would inherit."""
    loader = ModuleType(_PLUGIN_LOADER)
    loader.__dict__["get_plugins"] = tuple
    given = sys.modules.setdefault(_PLUGIN_LOADER, loader)
    try:
        Manifest.model_rebuild()
    finally:
        if given is loader:
            del sys.modules[_PLUGIN_LOADER]


_PLUGIN_LOADER = "pydantic.plugin._loader"


def unknown_key(path: Path) -> Complaint | None:
    """The complaint about the last key of ``path`` if its place has fields and this is none of them."""
    place = model_at(path[:-1])
    key = str(path[-1])
    return None if place is None or field_named(place, key) else _unknown_field(path)


# from pydantic's errors to sentences


def _complaint(error: Mapping[str, Any], *, guess: bool) -> Complaint:
    path, is_key = _path(error["loc"])
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_field(path) if guess else Complaint(path, f"unknown field {shown(path[-1])}")
    if kind == "missing":
        return Complaint(path, f"{shown(path[-1])} is required and missing", _missing_hint(path), is_missing=True)
    if is_key:
        return _bad_name(path, str(value), context)
    message, hint = SENTENCES.get(kind, other)(InvalidValue(path, value, {**context, "msg": error["msg"]}))
    return Complaint(path, message, hint, wants_number=kind in {"int_type", "float_type"})


def _path(location: tuple[str | int, ...]) -> tuple[Path, bool]:
    parts: list[str | int] = []
    for part in location:
        is_tag = part in ("word", "map") and _is_tagged(parts)
        if not is_tag and part != "[key]":
            parts.append(part)
    return tuple(parts), location[-1] == "[key]"


def _is_tagged(parts: Sequence[str | int]) -> bool:
    """Whether what stands here may be a word or a map, and pydantic puts the kind into its place."""
    return tuple(parts) in {("spec", "broker"), ("spec", "broker", "url")} or tuple(parts[-2:]) == ("task", "lookAhead")


def _unknown_field(path: Path) -> Complaint:
    key, place = str(path[-1]), model_at(path[:-1])
    known = aliases(place) if place else []
    near = closest(key, known)
    elsewhere = _elsewhere(key, path, place) if bare(near) != bare(key) else ""
    near = "" if elsewhere else near
    hint = _FOREIGN_WORDS.get(key, "") or elsewhere or did_you_mean(key, known)
    return Complaint(path, f"unknown field {shown(key)}", hint, meant=(*path[:-1], near) if near else None)


def _elsewhere(key: str, path: Path, place: type[BaseModel] | None) -> str:
    """Where a key that is unknown here would be known: one level down, beside us or above us."""
    if place is None:
        return ""
    for name, info in place.model_fields.items():
        below = as_model(model_in(info.annotation))
        if below and (field := _same_word(key, below)):
            return f"it belongs under {info.alias or name}: {info.alias or name}.{field}"
    for length in range(len(path) - 2, 0, -1):
        above = model_at(path[:length])
        if above and (field := _same_word(key, above)):
            return f"it belongs further out: {path_text((*path[:length], field))}"
    return ""


def _same_word(key: str, model: type[BaseModel]) -> str:
    """The field of a model that differs from a key only in how words are joined: ``time_limit`` and ``timeLimit``."""
    return next((alias for alias in aliases(model) if bare(alias) == bare(key)), "")


# Words of other tools, and ours.
_FOREIGN_WORDS = {
    "numprocs": "fleet says replicas",
    "count": "fleet says replicas",
    "instances": "fleet says replicas",
    "environment": "fleet says env",
    "directory": "fleet says release.workdir, of spec or of a group",
    "cwd": "fleet says release.workdir, of spec or of a group",
    "working_dir": "fleet says release.workdir, of spec or of a group",
    "workdir": "fleet says release.workdir, of spec or of a group",
    "scale": "fleet says replicas, or autoscale for a group that the controller moves",
    "beat": "beat is a group of its own: `command: [celery, -A, APP, beat]` with `rollout: {strategy: recreate}`",
    "autostart": "`paused: true` holds a group",
    "env_file": "fleet says envFrom: [{file: .env}]",
    "image": "fleet says spec.kubernetes.image",
    "autorestart": "fleet says restart.policy",
    "healthcheck": "fleet says health.command or health.http",
    "livenessProbe": "fleet says health.command or health.http",
    "readinessProbe": "fleet says health.command or health.http",
    "stop_signal": "fleet says stop.signal",
    "stopsignal": "fleet says stop.signal",
    "ulimits": "fleet says limits.openFiles",
    "mem_limit": "fleet says limits.memory",
    "stopwaitsecs": "fleet says drain.timeout",
    "max_tasks_per_child": "fleet says pool.maxTasksPerChild",
    "workers": "fleet says groups",
}


def _missing_hint(path: Path) -> str:
    examples: dict[Path, str] = {
        ("apiVersion",): f"add `apiVersion: {API_VERSION}`",
        ("kind",): f"add `kind: {KIND}`",
        ("metadata",): "add `metadata: {name: my-fleet}`",
        ("metadata", "name"): "add `name: my-fleet`",
        ("spec",): "add `spec:` with `groups:`",
        ("spec", "broker", "url"): "add `url: redis://host/0`, or write `broker: embedded`",
        ("spec", "broker", "url", "secret"): "write `url: {secret: name}` with a name under spec.secrets",
    }
    return examples.get(path, f"add `{path[-1]}:`")


def _bad_name(path: Path, key: str, context: Mapping[str, Any]) -> Complaint:
    what = _NAME_KINDS.get(str(path[-2]) if len(path) > 1 else "", "name")
    hint = PATTERN_HINTS.get(str(context.get("pattern", "")), "")
    if not hint:
        hint = f"it may have {context.get('max_length', 31)} characters"
    return Complaint(path, f"{shown(key)} is not a valid {what}", hint)


_NAME_KINDS = {
    "groups": "name of a group",
    "secrets": "name of a secret",
    "queues": "name of a queue",
    "rateLimits": "name of a task",
    "env": "name of an environment variable",
    "secretEnv": "name of an environment variable",
    "dependsOn": "name of a group",
    "connections": "name of a connection",
}
