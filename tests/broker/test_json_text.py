"""Text and bytes are read as ``json.loads`` reads them, and refused where it refuses them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker.json_text import loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BLANKS = st.sampled_from(["", " ", "\n\t", "\ufeff", "x"])


def read(reader: Any, text: Any) -> str:
    try:
        return repr(reader(text))
    except ValueError as error:
        return type(error).__name__


@given(value=VALUES, before=BLANKS, after=BLANKS, is_ascii=st.booleans())
def test_what_json_writes_is_read_alike(value: Any, before: str, after: str, is_ascii: bool) -> None:
    text = before + json.dumps(value, ensure_ascii=is_ascii) + after
    assert read(loads, text) == read(json.loads, text)


@given(value=VALUES, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be", "latin-1"]))
def test_bytes_in_any_encoding_are_read_alike(value: Any, encoding: str) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode(
        encoding, errors="surrogatepass" if "utf" in encoding else "replace"
    )
    assert read(loads, raw) == read(json.loads, raw)
    assert read(loads, bytearray(raw)) == read(json.loads, raw)


@given(raw=st.binary(max_size=20))
def test_other_bytes_are_refused_alike(raw: bytes) -> None:
    assert read(loads, raw) == read(json.loads, raw)


@pytest.mark.parametrize("text", ["", "[1,]", "{} {}", '{"a": 1, "a": 2}', "NaN", "-Infinity", '"\\ud800"', "1e999"])
def test_edges_are_read_alike(text: str) -> None:
    assert read(loads, text) == read(json.loads, text)
