"""Stands before every page: whose request is let in, and with which headers the answer goes out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fleet.operate.dashboard.access import Access, Denied, Person

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN = "/login"
OPEN = (LOGIN, "/static/")
"""What somebody without a token may see."""
MOST_BODY_BYTES = 64 << 10
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("content-security-policy", CONTENT_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
)
_METHODS = ("GET", "HEAD", "POST")


class Guard:
    """ASGI. Puts the Person into ``scope["person"]`` for what it lets pass."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            guarded = _with_headers(scope, send, is_secure=self._access.policy.is_secure)
            try:
                self._judge(scope)
            except Denied as denied:
                await _refuse(scope, guarded, denied)
            else:
                await self._app(scope, _limited(receive), guarded)

    def _judge(self, scope: Scope) -> None:
        headers = headers_of(scope)
        self._access.check_server(headers)
        if scope["method"] not in _METHODS:
            raise Denied(405, "no such method")
        try:
            too_long = int(headers.get("content-length", "0")) > MOST_BODY_BYTES
        except ValueError:
            too_long = True
        if too_long:
            raise Denied(413, "too long")
        peer = scope.get("client")
        try:
            person = self._access.person(headers, cookies_of(headers), peer[0] if peer else "")
        except Denied as denied:
            if not denied.needs_login or not scope["path"].startswith(OPEN):
                raise
            person = None
        if scope["method"] == "POST":
            self._judge_post(scope, headers, person)
        scope["person"] = person

    def _judge_post(self, scope: Scope, headers: dict[str, str], person: Person | None) -> None:
        if scope["path"] == LOGIN:
            self._access.check_origin(headers)
            return
        if person is None:
            raise Denied(401, "a token is needed", needs_login=True)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Denied(415, "application/json is needed")
        self._access.check_page(headers, person)


def headers_of(scope: Scope) -> dict[str, str]:
    """Lower case names; one that comes twice counts as neither: a proxy and a caller may mean different things."""
    found: dict[str, str] = {}
    for raw_name, raw in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in found and name != "cookie":
            raise Denied(400, f"{name} is here twice")
        found[name] = f"{found[name]}; {raw.decode('latin-1')}" if name in found else raw.decode("latin-1")
    return found


def cookies_of(headers: dict[str, str]) -> dict[str, str]:
    """Empty where they make no sense."""
    try:
        return {name: one.value for name, one in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _limited(receive: Receive) -> Receive:
    """A body without a length is cut off where it is too long."""
    left = MOST_BODY_BYTES

    async def limited() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                return {"type": "http.disconnect"}
        return message

    return limited


def _with_headers(scope: Scope, send: Send, *, is_secure: bool) -> Send:
    own = [(name.encode(), value.encode()) for name, value in HEADERS]
    keep = b"public, max-age=300" if scope["path"].startswith("/static/") else b"no-store"
    own.append((b"cache-control", keep))
    if is_secure:
        own.append((b"strict-transport-security", b"max-age=31536000"))

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in own}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in names]
            message["headers"] = [*kept, *own]
        await send(message)

    return guarded


async def _refuse(scope: Scope, send: Send, denied: Denied) -> None:
    is_page = not scope["path"].startswith(("/api/", "/static/")) and scope["method"] != "POST"
    if denied.needs_login and is_page:
        status, headers, body = 303, [(b"location", LOGIN.encode())], b""
    else:
        body = json.dumps({"error": {"message": denied.message, "hint": ""}}).encode()
        status, headers = denied.status, [(b"content-type", b"application/json")]
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
