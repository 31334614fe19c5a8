"""A manifest as text for people: one line per field, comments, quotes where YAML needs them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.core.manifest.models import API_VERSION, KIND
from fleet.core.manifest.yaml_scalars import resolve

WIDTH = 110
MOST_CHARACTERS = 63


@dataclass(frozen=True, slots=True)
class Made:
    """The parts of a manifest that was made from other files."""

    name: str
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    groups: Mapping[str, Mapping[str, object]]
    release: Mapping[str, str] = field(default_factory=dict)
    broker_url: str = ""
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    concurrency: int = 0


def free_name(wanted: str, taken: Mapping[str, object]) -> str:
    """A name that a group may have and none has yet."""
    name = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
    name = re.sub(r"^(fleet-)+", "", re.sub(r"^[^a-z]+", "", name))[:MOST_CHARACTERS].rstrip("-") or "group"
    number = 2
    free = name
    while free in taken:
        free, number = f"{name[: MOST_CHARACTERS - 4]}-{number}", number + 1
    return free


def span(seconds: float) -> str:
    """Seconds as a duration: ``300`` -> ``5m``."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s" if seconds < 1_000_000 else f"{int(seconds)}s"


def made_text(made: Made) -> str:
    """The manifest as YAML. An app that all groups have in common is written once."""
    app = _common_app(made.groups)
    lines = [f"# Made from {' '.join(', '.join(made.sources).split())}."]
    lines += [f"# Not taken over: {' '.join(note.split())}" for note in made.notes]
    lines += [f"apiVersion: {API_VERSION}", f"kind: {KIND}", f"metadata: {{name: {made.name}}}", "spec:"]
    lines += [f"  app: {scalar(app)}"] if app else []
    lines += [f"  release: {flow(made.release)}"] if made.release else []
    lines += _broker_lines(made)
    lines += [f"  concurrency: {made.concurrency}"] if made.concurrency else []
    if made.secrets:
        lines += ["  secrets:", *(f"    {name}: {flow(source)}" for name, source in made.secrets.items())]
    lines.append("  groups:")
    for key, group in made.groups.items():
        lines.append(f"    {key}:")
        for field_name, value in group.items():
            if not (field_name == "app" and value == app):
                lines += _field(field_name, value)
    return "\n".join(_printable(line) for line in lines) + "\n"


def _common_app(groups: Mapping[str, Mapping[str, object]]) -> str:
    apps = {str(group["app"]) for group in groups.values() if "app" in group}
    return apps.pop() if len(apps) == 1 else ""


def _broker_lines(made: Made) -> list[str]:
    if made.broker_url:
        return [f"  broker: {flow({'url': made.broker_url})}   # better: {{url: {{secret: name}}}} and spec.secrets"]
    if any("worker" in group for group in made.groups.values()):
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
