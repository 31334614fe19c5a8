"""The webhook: a signed request makes the source look now, and does nothing else."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.operate.sync.receiver import MOST_BYTES, Receiver, is_signed
from tests.conftest import eventually

SECRET = "hook-s3cret"


def signature(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@given(st.binary(max_size=50), st.binary(min_size=1, max_size=20), st.text(max_size=70))
def test_only_who_knows_the_secret_signs(body: bytes, secret: bytes, guess: str) -> None:
    right = hmac.new(secret, body, hashlib.sha256).hexdigest()
    assert is_signed({"X-Hub-Signature-256": f"sha256={right}"}, body, secret)
    assert not is_signed({"X-Hub-Signature-256": f"sha256={right}"}, body + b"x", secret)
    assert is_signed({"X-Gitlab-Token": guess}, body, secret) == (guess.encode("utf-8", "replace") == secret)
    if guess.removeprefix("sha256=").strip() != right:
        assert not is_signed({"X-Hub-Signature-256": guess}, body, secret)
    assert not is_signed({}, body, secret)


@pytest.fixture
def hook() -> Iterator[tuple[Receiver, list[int]]]:
    looks: list[int] = []
    with Receiver("127.0.0.1:0", SECRET, lambda: looks.append(1)) as receiver:
        yield receiver, looks


def post(receiver: Receiver, body: bytes, method: str = "POST", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
    try:
        connection.request(method, "/", body, {name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("header", ["X_Hub_Signature_256", "X_Gitea_Signature", "X_Fleet_Signature"])
def test_a_signed_request_makes_it_look(hook: tuple[Receiver, list[int]], header: str) -> None:
    body = b'{"ref": "refs/heads/main", "after": "an id that nobody reads"}'
    assert post(hook[0], body, **{header: f"sha256={signature(body)}"}) == 202
    assert hook[1] == [1]


def test_gitlab_sends_the_secret_itself(hook: tuple[Receiver, list[int]]) -> None:
    assert post(hook[0], b"{}", X_Gitlab_Token=SECRET) == 202
    assert post(hook[0], b"{}", X_Gitlab_Token="other") == 401
    assert hook[1] == [1]


def test_everything_else_is_refused_and_does_nothing(hook: tuple[Receiver, list[int]]) -> None:
    receiver, looks = hook
    body = b"{}"
    assert post(receiver, body) == 401
    assert post(receiver, body, X_Hub_Signature_256=f"sha256={signature(body, 'guess')}") == 401
    assert post(receiver, body + b" ", X_Hub_Signature_256=f"sha256={signature(body)}") == 401
    assert post(receiver, b"", method="GET") == 501
    assert looks == []


def test_a_body_that_is_too_long_is_not_read(hook: tuple[Receiver, list[int]]) -> None:
    with socket.create_connection(("127.0.0.1", hook[0].port), timeout=20) as caller:
        caller.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {MOST_BYTES + 1}\r\n\r\n".encode())
        assert b" 413 " in caller.recv(100)
    assert hook[1] == []


def test_callers_that_dawdle_do_not_keep_the_others_out(hook: tuple[Receiver, list[int]]) -> None:
    receiver, looks = hook
    slow = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(20)]
    try:
        body = b"{}"

        def gets_through() -> bool:
            try:
                return post(receiver, body, X_Hub_Signature_256=signature(body)) == 202
            except (OSError, http.client.HTTPException):
                return False

        eventually(gets_through, within=60)
        assert looks
    finally:
        for one in slow:
            one.close()


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(FleetError, match=f"cannot listen on 127.0.0.1:{port}"):
            Receiver(f"127.0.0.1:{port}", SECRET, lambda: None)
