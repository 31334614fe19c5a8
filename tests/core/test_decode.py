"""Dataclasses come back from the plain documents they were written as; a document of another shape is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest

from fleet.core.decode import decoded


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    most: float = 1.0


@dataclass(frozen=True, slots=True)
class Whole:
    kind: Literal["a", "b"]
    part: Part
    is_on: bool = False
    count: int | None = None
    parts: tuple[Part, ...] = ()
    pairs: tuple[tuple[str, int], ...] = ()
    by_name: Mapping[str, Part] | None = None
    marks: frozenset[str] = frozenset()


WHOLE = Whole("a", Part("x", 2.5), True, 3, (Part("y"), Part("z")), (("n", 1),), {"k": Part("w")})


def test_what_was_written_by_field_comes_back_equal() -> None:
    document = json.loads(json.dumps(asdict(WHOLE) | {"marks": ["m", "l"]}))

    assert decoded(Whole, document) == Whole(**{**vars_of(WHOLE), "marks": frozenset({"l", "m"})})


def vars_of(value: Whole) -> dict[str, Any]:
    return {name: getattr(value, name) for name in Whole.__dataclass_fields__}


def test_fields_may_be_written_in_camel_case_in_order_or_not_at_all() -> None:
    document = {"kind": "b", "part": ["x"], "isOn": True, "byName": {"k": ["w", 4.0]}}

    assert decoded(Whole, document) == Whole("b", Part("x"), is_on=True, by_name={"k": Part("w", 4.0)})


def test_a_number_is_kept_as_it_is_written() -> None:
    assert json.dumps(decoded(Part, {"name": "x", "most": 60}).most) == "60"


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "c"},
        {"part": None},
        {"part": {}},
        {"part": {"name": "x", "other": 1}},
        {"part": {"name": 1}},
        {"part": ["x", 1.0, 2]},
        {"part": "x"},
        {"is_on": 1},
        {"count": True},
        {"count": 1.5},
        {"count": "1"},
        {"parts": {"name": "x"}},
        {"parts": "x"},
        {"pairs": [["n"]]},
        {"pairs": [["n", 1, 2]]},
        {"by_name": ["x"]},
        {"marks": "m"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_document_of_another_shape_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        decoded(Whole, {"kind": "a", "part": ["x"], **more})


@pytest.mark.parametrize("document", [None, 1, "x", [], {}], ids=str)
def test_what_is_no_document_at_all_is_refused(document: object) -> None:
    with pytest.raises(TypeError):
        decoded(Whole, document)
