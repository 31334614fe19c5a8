"""The JSON Schema of a manifest, for editors: the models', with the shorthands and nulls that the parser takes."""

from __future__ import annotations

from typing import Any, get_args

from fleet.core.manifest.field_types import GROUP_PATTERN, QUEUE_PATTERN
from fleet.core.manifest.merge import NAMED_MAPS
from fleet.core.manifest.models import Manifest, Pool

EXTENSION = "x-"
TITLE = "fleet manifest"
_GROUPS = ("Group", "Defaults")


def json_schema() -> dict[str, Any]:
    """The schema that ``fleet schema`` prints and manifests/fleet.schema.json holds."""
    document = Manifest.model_json_schema(by_alias=True)
    for model in _GROUPS:
        fields = document["$defs"][model]["properties"]
        _also(fields["pool"], {"type": "string", "enum": pool_words()})
        _also(fields["queues"], _names(QUEUE_PATTERN))
        _also(fields["dependsOn"], _names(GROUP_PATTERN))
        _also(fields["waitFor"], {"type": "array", "items": {"type": "string"}, "minItems": 1})
        for part in fields["dependsOn"]["anyOf"]:
            for pattern, value in part.get("patternProperties", {}).items():
                part["patternProperties"][pattern] = {"anyOf": [{"enum": ["ready", "completed"]}, value]}
    for fields in (document, document["$defs"]["Spec"]):
        fields["patternProperties"] = {f"^{EXTENSION}": {"description": "not read; a place for anchors"}}
    _allow_nulls(document)
    _tidy(document)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE}
    return {**head, **{key: value for key, value in document.items() if key != "title"}}


def pool_words() -> list[str]:
    """The kinds of pool a manifest may name."""
    literal = get_args(Pool.model_fields["type"].annotation)[0]
    return [str(word) for word in get_args(literal)]


def _names(pattern: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "pattern": pattern}, "uniqueItems": True}


def _also(field: dict[str, Any], alternative: dict[str, Any]) -> None:
    field["anyOf"] = [alternative, *field["anyOf"]]


def _allow_nulls(document: dict[str, Any]) -> None:
    """In maps of named things null removes what a default or an earlier file brought."""
    models = [document, *document["$defs"].values()]
    for model in models:
        for name, field in model.get("properties", {}).items():
            if name in NAMED_MAPS:
                for part in (field, *field.get("anyOf", ())):
                    _nullable(part)


def _nullable(part: dict[str, Any]) -> None:
    for key in ("additionalProperties", "patternProperties"):
        values = part.get(key)
        if key == "patternProperties" and values:
            part[key] = {pattern: {"anyOf": [value, {"type": "null"}]} for pattern, value in values.items()}
        elif isinstance(values, dict):
            part[key] = {"anyOf": [values, {"type": "null"}]}


def _tidy(part: Any) -> None:
    """Drop titles made from field names and defaults that only mean silence; editors would show them as noise."""
    if isinstance(part, list):
        for item in part:
            _tidy(item)
    elif isinstance(part, dict):
        if isinstance(part.get("title"), str):
            del part["title"]
        if part.get("default", 0) is None or part.get("default") == {}:
            del part["default"]
        for value in part.values():
            _tidy(value)
