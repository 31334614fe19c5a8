"""What `fleet init` writes is a manifest that holds; what it imports does what the original did."""

from __future__ import annotations

import ast
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.authoring.template import files, fleet_name
from fleet.authoring.yaml_writer import flow, free_name, scalar
from fleet.core.manifest.field_types import NAME_PATTERN
from fleet.core.manifest.parse import schema
from tests.core.texts import fleet, read

# a start from nothing


def test_the_starter_is_a_manifest_that_holds_and_tasks_that_compile() -> None:
    texts = files("hello")
    assert set(texts) == {"fleet.yaml", "tasks.py", "fleet.schema.json"}
    parsed = read(texts["fleet.yaml"])
    assert parsed.warnings == ()
    assert parsed.manifest.name == "hello"
    assert {"quick", "heavy"} == set(parsed.manifest.spec.groups)
    ast.parse(texts["tasks.py"])
    assert json.loads(texts["fleet.schema.json"]) == schema()


def test_tasks_of_the_starter_register_under_the_name_of_the_fleet() -> None:
    pytest.importorskip("fleet.tasks")
    space: dict[str, object] = {"__name__": "tasks"}
    exec(compile(files("hello")["tasks.py"], "tasks.py", "exec"), space)
    assert "tasks" in space


@pytest.mark.parametrize(
    ("folder", "name"),
    [("shop", "shop"), ("My Shop!", "my-shop"), ("99 bottles", "bottles"), ("日本", "my-fleet"), ("x" * 40, "x" * 31)],
)
def test_a_folder_gives_its_name(folder: str, name: str) -> None:
    assert fleet_name(folder) == name


# words


@pytest.mark.parametrize(
    "text",
    [
        "a;b",
        "%(x)s",
        '"',
        "'",
        "$HOME",
        "ünï",
        "no",
        "012",
        "1.5",
        "a: b",
        "a #b",
        "-",
        "- a",
        "{",
        "\x7f",
        "\u2028",
        "",
    ],
)
def test_hostile_words_are_written_so_that_they_read_back(text: str) -> None:
    parsed = read(fleet(f"a: {flow({'replicas': 1, 'command': ['echo', text], 'env': {'X': text}})}"))
    group = parsed.manifest.spec.groups["a"]
    assert group.command == ["echo", text]
    assert group.env == {"X": text}


def test_words_that_need_no_quotes_have_none() -> None:
    assert [scalar(text) for text in ("shop.worker:app", "-A", "--time-limit", "/srv/x", "redis://h/0", "a b")] == [
        "shop.worker:app", "-A", "--time-limit", "/srv/x", "redis://h/0", '"a b"',
    ]  # fmt: skip


@given(st.text(max_size=60), st.sets(st.text(max_size=10)))
def test_every_text_gives_a_free_name(text: str, taken: set[str]) -> None:
    name = free_name(text, dict.fromkeys(taken))
    assert re.match(NAME_PATTERN, name)
    assert name not in taken
    assert not name.startswith("fleet-")
