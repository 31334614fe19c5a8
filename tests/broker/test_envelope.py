"""Envelopes of any size are read alike."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker import envelope
from fleet.broker.envelope import JUNK_CONTENT_TYPE, Envelope, opened, sealed


def written(body: str, **properties: Any) -> bytes:
    """As kombu writes it, the body first."""
    document = {"body": body, "headers": {"id": "1"}, "content-type": "application/json", "properties": properties}
    return json.dumps(document).encode()


BASE64 = b64encode(b'{"a": "b"}').decode()
KINDS = {
    "of kombu": written(BASE64, body_encoding="base64"),
    "with a mark": written(BASE64, body_encoding="base64", delivery_info={"redelivered": True}),
    "not encoded": written('{"a": "b"}'),
    "empty": written("", body_encoding="base64"),
    "no base64": written("%%%", body_encoding="base64"),
    "base64 in lines": written(f"{BASE64[:8]}\n{BASE64[8:]}", body_encoding="base64"),
    "with an escape": written(BASE64 + '"', body_encoding="base64"),
    "not ASCII": written(BASE64, body_encoding="base64").replace(b'"body": "', b'"body": "\xff'),
    "control characters": written(BASE64, body_encoding="base64").replace(b'"body": "', b'"body": "\x01'),
    "two bodies": written(BASE64, body_encoding="base64")[:-1] + b', "body": "e30="}',
    "extended types": written(BASE64, body_encoding="base64", sent={"__type__": "date", "__value__": "2026-01-01"}),
    "no properties": b'{"body": "e30="}',
    "no headers": b'{"body": "e30=", "properties": {"body_encoding": "base64"}}',
    "cut": written(BASE64, body_encoding="base64")[:40],
    "cut in the body": b'{"body": "e3',
    "a list": b'["body"]',
}


def of_any_size(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Envelope, Envelope]:
    """How it is read when it counts as small, and when it counts as large."""
    found = []
    for limit in (len(raw) + 1, 0):
        monkeypatch.setattr(envelope, "_LARGE_BYTES", limit)
        found.append(opened(bytearray(raw)))
    return found[0], found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_large_and_small_envelopes_are_read_alike(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = of_any_size(KINDS[kind], monkeypatch)
    assert small == large


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 150), st.sampled_from([b'"', b"\\", b"\xe9", b"}", b"", b"A"]))
def test_damaged_envelopes_are_read_alike(kind: str, place: int, piece: bytes) -> None:
    raw = KINDS[kind][:place] + piece + KINDS[kind][place + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        small, large = of_any_size(raw, patch)
    assert small == large


def test_a_large_body_is_what_was_sealed() -> None:
    body = b'{"a": "' + b"x" * 100_000 + b'"}'
    raw = sealed("q", body, headers={}, properties={}, content_type="application/json", content_encoding="utf-8")
    assert opened(raw).body == body
    assert opened(raw[:-1]).content_type == JUNK_CONTENT_TYPE
