"""One message as it came from a broker, its body still encoded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.core.text.variables import count_in

USUAL_BODY_BYTES = 128 << 20
VARIABLE = "FLEET_MAX_MESSAGE_BYTES"


def most_body_bytes(environ: Mapping[str, str]) -> int:
    """What the variable says, where it is a number above 0."""
    return count_in(environ, VARIABLE, usual=USUAL_BODY_BYTES)


MOST_BODY_BYTES = most_body_bytes(os.environ)
"""The longest body of a message, as it is sent and decompressed; a longer one is no task."""


@dataclass(slots=True)
class Delivery:
    """A message as it came from the broker, body still encoded.

    tag: its id in the channel.  body: bytes or text, after the transport's own decoding (base64 undone).
    received_at: ``time.monotonic()`` of arrival; asked_at: of the fetch that brought it, where tasks are traced.
    attempts: earlier deliveries known to have ended in a crash.
    original: what the channel needs to give it back unchanged.
    """

    tag: str
    queue: str
    body: bytes | str
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    redelivered: bool = False
    attempts: int = 0
    received_at: float = 0.0
    asked_at: float = 0.0
    original: Any = None
