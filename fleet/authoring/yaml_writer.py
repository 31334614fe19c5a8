"""A manifest as text for people: one line per field, comments, quotes where YAML needs them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.core.manifest.models import API_VERSION, KIND
from fleet.core.manifest.yaml_scalars import resolve
from fleet.core.text.mask import masked

WIDTH = 110


@dataclass(frozen=True, slots=True)
class Imported:
    """A manifest made from something else, and notes on what could not be converted."""

    manifest: str
    notes: tuple[str, ...]


@dataclass(slots=True)
class Draft:
    """A manifest that is being put together."""

    groups: dict[str, dict[str, object]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    release: dict[str, str] = field(default_factory=dict)
    broker_url: str = ""

    def note(self, text: str) -> None:
        """Add a note for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)

    def workdir(self, folder: str) -> None:
        """Set the folder of the code, the same for all groups."""
        self._release("workdir", folder)

    def interpreter_beside(self, program: str) -> None:
        """The interpreter of a virtual environment, from a program in it."""
        if "/" in program:
            self._release("python", re.sub(r"[^/]+$", "python", program))

    def broker(self, url: str) -> None:
        """Set the broker's URL, the same for all groups."""
        if self.broker_url not in ("", url):
            self.note(f"a second broker, {masked(url)}: a fleet has one; make another manifest for it")
        self.broker_url = self.broker_url or url

    def add(self, name: str, fields: Mapping[str, object]) -> None:
        """A group under a name as close to ``name`` as the rules allow."""
        self.groups[free_name(name, self.groups)] = dict(fields)

    def add_alike(self, name: str, fields: Mapping[str, object], *, of: str) -> None:
        """A worker; those with equal fields and the same stem (``w1``, ``w2``) are replicas of one group."""
        for group in self.groups.values():
            if group.get("_stem") == of and {**group, "_stem": 0, "replicas": 0} == {
                **fields,
                "_stem": 0,
                "replicas": 0,
            }:
                group["replicas"] = int(str(group["replicas"])) + 1
                return
        stem = of if free_name(of, {}) not in self.groups else name
        self.groups[free_name(stem, self.groups)] = {**fields, "replicas": 1, "_stem": of}

    def _release(self, name: str, value: str) -> None:
        if self.release.setdefault(name, value) != value:
            self.note(f"{name} {value}: a fleet has one, {self.release[name]}; make another manifest for this")


def free_name(wanted: str, taken: Mapping[str, object]) -> str:
    """A name that a group may have and none has yet."""
    name = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
    name = re.sub(r"^(fleet-)+", "", re.sub(r"^[^a-z]+", "", name))[:28].rstrip("-") or "group"
    number = 2
    free = name
    while free in taken:
        free, number = f"{name[:26]}-{number}", number + 1
    return free


def span(seconds: float) -> str:
    """Seconds as a duration: ``300`` -> ``5m``."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s" if seconds < 1_000_000 else f"{int(seconds)}s"


def draft_text(draft: Draft, *, name: str, source: str) -> str:
    """The draft as YAML. An app that all groups have in common is written once."""
    groups = {key: {k: v for k, v in group.items() if k != "_stem"} for key, group in draft.groups.items()}
    app = _common_app(groups)
    lines = [f"# Made from {' '.join(source.split())}."]
    lines += [f"# Not taken over: {' '.join(note.split())}" for note in draft.notes]
    lines += [f"apiVersion: {API_VERSION}", f"kind: {KIND}", f"metadata: {{name: {name}}}", "spec:"]
    lines += [f"  app: {scalar(app)}"] if app else []
    lines += [f"  release: {flow(draft.release)}"] if draft.release else []
    lines += _broker_lines(draft, groups)
    lines.append("  groups:")
    for key, group in groups.items():
        lines.append(f"    {key}:")
        for field_name, value in group.items():
            if not (field_name == "app" and value == app):
                lines += _field(field_name, value)
    return "\n".join(_printable(line) for line in lines) + "\n"


def _common_app(groups: Mapping[str, Mapping[str, object]]) -> str:
    apps = {str(group["app"]) for group in groups.values() if "app" in group}
    return apps.pop() if len(apps) == 1 else ""


def _broker_lines(draft: Draft, groups: Mapping[str, Mapping[str, object]]) -> list[str]:
    if draft.broker_url:
        return [f"  broker: {flow({'url': draft.broker_url})}   # better: {{url: {{secret: name}}}} and spec.secrets"]
    if any("worker" in group for group in groups.values()):
        return ["  # broker: {url: redis://host/0}   # without this, Celery's workers take it from their app"]
    return []


def _field(name: str, value: object) -> list[str]:
    line = f"      {name}: {flow(value)}"
    if len(line) <= WIDTH or not isinstance(value, Mapping):
        return [line]
    return [f"      {name}:", *(f"        {scalar(key)}: {flow(child)}" for key, child in value.items())]


def flow(value: object) -> str:
    """A value in flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return scalar(value) if isinstance(value, str) else str(value)


def scalar(value: object) -> str:
    """Text, in quotes unless every YAML tool reads it as this text without them."""
    text = str(value)
    meaning, trap, _ = resolve(text)
    plain = re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./@=:+-]*(?<!:)|--?[A-Za-z][A-Za-z0-9-]*", text)
    if plain and meaning == text and not trap:
        return text
    return _printable(json.dumps(text, ensure_ascii=False))


def _printable(line: str) -> str:
    """Characters that no manifest may hold as such, as escapes; they only occur in quotes and comments."""
    return re.sub(
        "[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", line
    )
