"""docs/manifest.md, made from the models so that they agree: ``python -m fleet.core.manifest.reference``."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fleet.core.manifest import field_types, models
from pools.traits import TRAITS

_INTRODUCTION = f"""\
# The manifest

One YAML file describes one fleet: `apiVersion: {models.API_VERSION}`, `kind: {models.KIND}`. This page is made
from the models that read it. Editors complete from [fleet.schema.json](../manifests/fleet.schema.json); start a
file with `# yaml-language-server: $schema=fleet.schema.json`, or let `fleet init` write one.

Everything is checked before anything is touched, and every problem is reported at once with file, line, column
and hint:

    manifests/prod.yaml:14:7  spec.groups.ingest.pool: unknown pool 'gevnt'
      hint: did you mean 'gevent'? known: asyncio, custom, eventlet, gevent, prefork, solo, threads

## How files become one manifest

- **Overlays.** `fleet apply base.yaml prod.yaml` merges left to right: maps merge, anything else replaces, `null`
  removes ([RFC 7386](https://www.rfc-editor.org/rfc/rfc7386)). Everything that has a name is a map, so a group
  can be changed from another file.
- **Defaults.** `spec.defaults` lies beneath every group by the same rule; a `null` in a group removes a default.
  What excludes each other is not mixed: a group that says `replicas`, `share` or `autoscale` takes no other of
  these from the defaults; a command takes no `app`, `worker`, `pool`, `queues`, `task`, `logging`,
  `remoteControl`; what is recreated takes no `maxSurge`.
- **Shorthands.** `pool: solo` is `pool: {{type: solo}}`; `queues: [a, b]` and `dependsOn: [a]` are maps without
  options, `waitFor: [URL]` is `waitFor: {{urls: [URL]}}`. A shorthand replaces what it overlays as a whole.
- **Environment.** `${{env:NAME}}` and `${{env:NAME:-default}}` in any text value, of the environment of the
  `fleet` command. What is put in stays text. `$${{env:NAME}}` stands for the characters themselves. There is no
  other templating.
- **Plain YAML only.** Anchors, aliases and merge keys (`<<`) work, and `x-…` blocks, at the top and in `spec`, are
  for sharing only. Refused: duplicate keys, tags, several documents, more than 1,000 aliases,
  more than 1 MiB, control characters, and plain words that YAML tools read differently (`yes`, `no`, `on`, `off`,
  `012`, `0x1F`, `1_000`, `12:30`, `2024-01-01`): put text in quotes.
- **Names** of fleets and secrets: lower-case letters, digits and hyphens, a letter first, at most 31; of groups at most
  63. Groups called `fleet-…` and variables called `FLEET_…` are fleet's own, but for
  `FLEET_MINGLE_SECONDS` and `FLEET_MAX_MESSAGE_BYTES`, which a group's `env` may set for its workers.
- **Durations** have units (`500ms`, `30s`, `5m`, `1h30m`, `2d`), **sizes** too (`512Mi`, `2Gi`). Both are text.
"""

_RULES = """\
## What must fit together

- A group has exactly one of `replicas`, `share` and `autoscale`; the latter two need `spec.concurrency`.
- Fixed groups and every `min` together must fit into `spec.concurrency`. Paused groups do not count.
- A group has an app (its own or `spec.app`) or a `command`, never both. Workers need `spec.broker`; a group with
  `worker: celery` may leave it to its app.
- `softTimeLimit` is below `timeLimit`; with `visibilityTimeout` given, `timeLimit` and `drain.timeout` together
  are at most that, unless `acks: early`.
- `dependsOn` names other groups and has no circle. Secrets that are used are declared, each with exactly one
  source.
- What a pool cannot do is refused and never ignored:

"""


def markdown() -> str:
    """The text of docs/manifest.md."""
    return "\n".join([_INTRODUCTION, *_sections(), _RULES + _capabilities()])


def _sections() -> Iterator[str]:
    for path, model in places(models.Manifest, ""):
        title = f"`{path}`" if path else "The file"
        yield f"## {title}\n\n{_sentence(model)}\n\n{_table(model)}\n"


def places(model: type[BaseModel], path: str, seen: set[type] | None = None) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model with the key path under which it is first met; what defaults share with groups appears once."""
    seen = set() if seen is None else seen
    seen.add(model)
    yield path, model
    for name, info in model.model_fields.items():
        below = f"{path}.{info.alias or name}".lstrip(".")
        for inner, suffix in _models_in(info.annotation):
            if inner not in seen and inner is not models.Defaults:
                yield from places(inner, below + suffix, seen)


def _models_in(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    origin = get_origin(annotation)
    if isinstance(annotation, type) and origin is None and issubclass(annotation, BaseModel):
        yield annotation, suffix
    elif origin is dict:
        yield from _models_in(get_args(annotation)[1], ".<name>")
    elif origin is list:
        yield from _models_in(get_args(annotation)[0], "[]")
    elif origin in (Annotated, Union, types.UnionType):
        for part in get_args(annotation)[: 1 if origin is Annotated else None]:
            yield from _models_in(part, suffix)


def _sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _table(model: type[BaseModel]) -> str:
    rows = ["| field | value | meaning |", "|---|---|---|"]
    for name, info in model.model_fields.items():
        required = " **Required.**" if info.is_required() else ""
        text = (info.description or "").replace("|", "\\|")
        rows.append(f"| `{info.alias or name}` | {_kind(info)} | {text}.{required}{_default(info)} |")
    return "\n".join(rows)


def _default(info: FieldInfo) -> str:
    value = info.default
    if info.is_required() or value is None or isinstance(value, BaseModel) or value == {}:
        return ""
    shown = f"{value:g}s" if info.annotation is float and value == 120.0 else str(value)
    return f" Default `{shown}`."


_BY_METADATA: dict[Any, str] = {field_types.duration_seconds: "duration", field_types.size_bytes: "size"}
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _kind(info: FieldInfo) -> str:
    words = _kinds(info.annotation, info.metadata)
    return ", ".join(dict.fromkeys(words))


def _kinds(annotation: Any, metadata: Any = ()) -> list[str]:
    for mark in metadata:
        if (kind := _BY_METADATA.get(getattr(mark, "func", None))) is not None:
            return [kind]
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is types.NoneType:
        return []
    if any(getattr(mark, "func", None) is field_types.tick_seconds for mark in metadata):
        return ["`auto`", "duration"]
    if origin is Literal:
        return [f"`{word}`" for word in parts]
    if origin is Annotated:
        return _kinds(parts[0], parts[1:])
    if origin is dict and parts[1] is Any:
        return ["map"]
    if origin is dict:
        return [f"map of {_plural(_kinds(parts[1]))}"]
    if origin is list:
        words = _kinds(parts[0])
        return [f"list of {', '.join(words) if words[0].startswith('`') else _plural(words)}"]
    if origin in (Union, types.UnionType):
        return [word for part in parts for word in _kinds(part)]
    return [_PLAIN.get(annotation, "map")]


def _plural(words: list[str]) -> str:
    plurals = {"text": "texts", "map": "maps", "whole number": "whole numbers"}
    return plurals.get(words[0], words[0])


def _capabilities() -> str:
    columns = {
        "hard_limit": "`timeLimit`",
        "soft_limit": "`softTimeLimit`",
        "recycle_tasks": "`maxTasksPerChild`",
        "recycle_memory": "`maxMemoryPerChild`",
        "recycle_age": "`maxAgePerChild`",
        "own_processes": "`startMethod`",
    }
    rows = ["| pool | slots | " + " | ".join(columns.values()) + " |", "|---|---|" + "---|" * len(columns)]
    for name, traits in TRAITS.items():
        able = "as its class can" if name == "custom" else None
        cells = [able or ("yes" if getattr(traits, trait) else "-") for trait in columns]
        rows.append(f"| {name} | {traits.fixed_slots or 'any'} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
