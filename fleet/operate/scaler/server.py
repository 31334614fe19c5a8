"""Answers KEDA: how many slots a group is to have, as JSON over HTTP. Reading only: no request changes anything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fleet.operate.http_server import BoundedServer, Listening, QuietHandler
from fleet.operate.scaler.loop import ScalerLook

STALE_SECONDS = 60.0
"""Numbers of a look that is so long ago are not given any more: KEDA falls back to the static shares."""
_HUNG_SECONDS = 120.0
_PATIENCE_SECONDS = 5.0


@dataclass(slots=True)
class Board:
    """What the server may say; written by the loop, read by its threads. ``monotonic``: seconds of a clock."""

    monotonic: Callable[[], float] = time.monotonic
    _look: ScalerLook | None = None
    _seen_at: float = 0.0
    _alive_at: float = field(default_factory=time.monotonic)

    def alive(self) -> None:
        """The loop still goes round."""
        self._alive_at = self.monotonic()

    def show(self, look: ScalerLook | None) -> None:
        """The numbers of a look; None: those of before are void, because this process does not lead."""
        self._look, self._seen_at = look, self.monotonic()

    def answer(self, path: str) -> tuple[int, Mapping[str, Any]]:
        """Status and document of a request."""
        parts = urlsplit(path)
        if parts.path == "/live":
            hung = self.monotonic() - self._alive_at > _HUNG_SECONDS
            return (503, {"error": "the loop hangs"}) if hung else (200, {})
        if parts.path == "/ready":
            return 200, {}
        if parts.path not in ("/slots", "/look"):
            return 404, {"error": "there is /slots?group=NAME and /look"}
        look = self._look
        if look is None:
            return 503, {"error": "this one does not lead, or has not looked yet"}
        if self.monotonic() - self._seen_at > STALE_SECONDS:
            return 503, {"error": "the last look is too long ago"}
        if parts.path == "/look":
            return 200, look.to_json()
        group = (parse_qs(parts.query).get("group") or [""])[0]
        if group not in look.orders:
            return 404, {"error": f"no group {group!r} is scaled"}
        return 200, {"slots": look.orders[group]}


class ScalerServer(Listening):
    """Listens from ``with`` to its end, in threads of its own. Raises OSError where it cannot listen."""

    def __init__(self, board: Board, *, port: int, host: str = "") -> None:
        super().__init__(_Server((host, port), board), name="scaler")


class _Server(BoundedServer):
    def __init__(self, address: tuple[str, int], board: Board) -> None:
        self.board = board
        super().__init__(address, _Handler)


class _Handler(QuietHandler):
    server: _Server
    timeout = _PATIENCE_SECONDS

    def do_GET(self) -> None:  # noqa: N802
        status, document = self.server.board.answer(self.path)
        self.answer(status, json.dumps(document).encode(), "application/json")
