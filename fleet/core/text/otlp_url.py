"""The address of an OpenTelemetry collector, as text."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

_LIKE = "write it like http://127.0.0.1:4318"


def otlp_url(text: Any) -> str:
    """The base URL of OTLP over HTTP, without a slash at its end; ``/v1/traces`` and the like are put behind it.

    Raises ValueError with a sentence for people, its hint after ``; ``.
    """
    if not isinstance(text, str):
        raise ValueError(f"not a URL: {text!r}; {_LIKE}")
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or any(not one.isprintable() or one.isspace() for one in text):
        raise ValueError(f"not a URL of http or https; {_LIKE}")
    if "@" in parts.netloc:
        raise ValueError(f"a URL with a name or a password; put those into OTEL_EXPORTER_OTLP_HEADERS, {_LIKE}")
    if parts.query or parts.fragment:
        raise ValueError(f"a URL with a query or a fragment; {_LIKE}")
    base = text.rstrip("/")
    if base.endswith(("/v1/traces", "/v1/metrics")):
        raise ValueError(f"the URL of one signal, where the collector's own is asked for; {_LIKE}")
    return base
