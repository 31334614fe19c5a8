"""Patterns of single values hold as pydantic's own do."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import StringConstraints, TypeAdapter, ValidationError

from fleet.core.manifest import field_types, kubernetes_models
from fleet.core.manifest.field_types import LONGEST_MATCHED, Matching

PATTERNS = {
    name: pattern
    for module in (field_types, kubernetes_models)
    for name, pattern in vars(module).items()
    if name.endswith("_PATTERN")
}
OWN = {name: TypeAdapter(Annotated[str, Matching(pattern)]) for name, pattern in PATTERNS.items()}
PYDANTICS = {name: TypeAdapter(Annotated[str, StringConstraints(pattern=one)]) for name, one in PATTERNS.items()}


def outcome(adapter: TypeAdapter[str], text: object) -> object:
    """The text, or the errors that it has."""
    try:
        return adapter.validate_python(text)
    except ValidationError as error:
        return [(one["type"], one.get("ctx"), one["msg"], one["loc"]) for one in error.errors()]


def near(pattern: str) -> st.SearchStrategy[str]:
    """Text that fits, and text that just does not: more before it, more after it, a line feed at its end."""
    fits = st.from_regex(pattern[1:-1].join(("^", r"\Z")), alphabet=st.characters(max_codepoint=126))
    more = st.sampled_from(("", "\n", " ", "a", "/", "-", "\r\n"))
    return st.tuples(more, fits, more).map("".join)


@pytest.mark.parametrize("name", PATTERNS)
@given(data=st.data())
def test_it_takes_and_refuses_what_pydantics_own_does(name: str, data: st.DataObject) -> None:
    text = data.draw(near(PATTERNS[name]) | st.text(st.characters(min_codepoint=32, max_codepoint=126)))
    assert outcome(OWN[name], text) == outcome(PYDANTICS[name], text)


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_no_text_and_what_is_too_long_for_any_is_refused(name: str) -> None:
    assert outcome(OWN[name], 5) == outcome(PYDANTICS[name], 5)
    assert isinstance(outcome(OWN[name], "1" * (LONGEST_MATCHED + 1)), list)


@pytest.mark.parametrize("name", PATTERNS)
def test_its_json_schema_is_pydantics(name: str) -> None:
    assert OWN[name].json_schema() == PYDANTICS[name].json_schema()
