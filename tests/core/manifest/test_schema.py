"""The JSON Schema and the reference page are those of the models, and agree with the parser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fleet.core.manifest.models import Manifest
from fleet.core.manifest.parse import schema
from fleet.core.manifest.reference import markdown, places
from pools.traits import TRAITS
from tests.core.texts import GOOD, document, problems

ROOT = Path(__file__).parents[3]


def test_checked_in_schema_is_current() -> None:
    """To refresh: ``fleet schema > manifests/fleet.schema.json``."""
    assert json.loads((ROOT / "manifests" / "fleet.schema.json").read_text()) == schema()


def test_checked_in_reference_is_current() -> None:
    """To refresh: ``python -m fleet.core.manifest.reference > docs/manifest.md``."""
    assert (ROOT / "docs" / "manifest.md").read_text() == markdown()


def test_reference_tells_every_field_of_every_model() -> None:
    page = markdown()
    for path, model in places(Manifest, ""):
        assert not path or f"## `{path}`" in page
        for name, info in model.model_fields.items():
            assert f"| `{info.alias or name}` |" in page
            assert info.description, f"{model.__name__}.{name} has no description"


def test_pools_of_the_manifest_are_those_of_the_table() -> None:
    assert set(schema()["$defs"]["Pool"]["properties"]["type"]["anyOf"][0]["enum"]) == set(TRAITS)


class Schema:
    """As much of a JSON Schema validator as these schemas need."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self.whole = whole

    def takes(self, value: Any, part: dict[str, Any] | None = None) -> bool:
        part = self.whole if part is None else part
        if "$ref" in part:
            return self.takes(value, self.whole["$defs"][part["$ref"].rsplit("/", 1)[-1]])
        checks = [
            "anyOf" not in part or any(self.takes(value, option) for option in part["anyOf"]),
            "oneOf" not in part or sum(self.takes(value, option) for option in part["oneOf"]) == 1,
            "enum" not in part or value in part["enum"],
            "const" not in part or value == part["const"],
            "type" not in part or self.is_a(value, part["type"]),
            not isinstance(value, str) or re.search(part.get("pattern", ""), value) is not None,
            not isinstance(value, dict) or self.takes_map(value, part),
            not isinstance(value, list) or all(self.takes(item, part.get("items", {})) for item in value),
        ]
        return all(checks)

    def takes_map(self, value: dict[str, Any], part: dict[str, Any]) -> bool:
        if any(name not in value for name in part.get("required", ())):
            return False
        return all(self.takes_entry(key, child, part) for key, child in value.items())

    def takes_entry(self, key: str, value: Any, part: dict[str, Any]) -> bool:
        if key in part.get("properties", {}):
            return self.takes(value, part["properties"][key])
        for pattern, below in part.get("patternProperties", {}).items():
            if re.search(pattern, key):
                return self.takes(value, below)
        more = part.get("additionalProperties", True)
        return more if isinstance(more, bool) else self.takes(value, more)

    @staticmethod
    def is_a(value: Any, kind: str) -> bool:
        kinds: dict[str, tuple[type, ...]] = {
            "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
            "object": (dict,), "array": (list,), "null": (type(None),),
        }  # fmt: skip
        return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))


def test_schema_takes_the_good_manifest_and_its_shorthands() -> None:
    assert problems(GOOD) == []
    assert Schema(schema()).takes(document())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("pool", "gevnt"), ("pool", 3), ("queues", "a"), ("queues", [1]), ("replicas", "3"), ("bogus", 1),
        ("drain", "5s"), ("drain", {"timeout": "5"}), ("env", {"X": 1}), ("dependsOn", ["A B"]),
    ],
)  # fmt: skip
def test_schema_refuses_what_the_parser_refuses(place: str, value: Any) -> None:
    values = document()
    values["spec"]["groups"]["thumbs"][place] = value
    assert problems(json.dumps(values))
    assert not Schema(schema()).takes(values)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("env", {"TZ": None}),
        ("pool", {"type": "solo"}),
        ("drain", None),
        ("queues", {"a": {"priority": 1}}),
        ("dependsOn", ["mail"]),
        ("waitFor", ["tcp://db:5432"]),
        ("waitFor", {"urls": ["tcp://db:5432"], "timeout": "5m"}),
        ("health", {"http": {"port": 8000, "path": "/ok"}, "interval": "5s"}),
        ("health", {"command": ["check"]}),
    ],
)
def test_schema_takes_what_the_parser_takes(place: str, value: Any) -> None:
    values = document()
    values["spec"]["groups"]["thumbs"][place] = value
    assert problems(json.dumps(values)) == []
    assert Schema(schema()).takes(values)
