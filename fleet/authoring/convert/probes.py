"""Probes of Kubernetes as the health check of a group."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fleet.authoring.convert.yaml_lines import text_of
from fleet.authoring.yaml_writer import span

PROBE_READ = frozenset({"exec", "httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"})
_PERIOD_SECONDS, _TIMEOUT_SECONDS, _FAILURES = 10, 1, 3  # of Kubernetes, where a probe says nothing


def probe_check(probe: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, object] | str:
    """``command`` or ``http`` of ``health``, or why there is none."""
    command = _map(probe.get("exec")).get("command")
    if isinstance(command, list) and command:
        return {"command": [text_of(word) for word in command]}
    request = _map(probe.get("httpGet"))
    if not request:
        return "only exec and httpGet have a counterpart, as health.command and health.http"
    if text_of(request.get("scheme", "HTTP")).upper() != "HTTP":
        return "health.http speaks no TLS"
    port = _port(request.get("port"), container)
    path = text_of(request.get("path", "/"))
    if port is None or not re.fullmatch("/[!-~]*", path):
        return "its port or path is not known"
    headers = [_map(item) for item in request.get("httpHeaders") or []]
    host = next((text_of(item.get("value")) for item in headers if text_of(item.get("name")).lower() == "host"), "")
    return {"http": {"port": port, "path": path, **({"host": host} if re.fullmatch("[A-Za-z0-9.:_-]+", host) else {})}}


def probe_times(probe: Mapping[str, Any]) -> dict[str, object]:
    """``interval``, ``timeout`` and ``failures``, where they are not those that both tools have."""
    period, timeout = _count(probe, "periodSeconds", _PERIOD_SECONDS), _count(probe, "timeoutSeconds", _TIMEOUT_SECONDS)
    failures = _count(probe, "failureThreshold", _FAILURES)
    found: dict[str, object] = {} if period == _PERIOD_SECONDS else {"interval": span(period)}
    found["timeout"] = span(timeout)
    return found if failures == _FAILURES else {**found, "failures": failures}


def startup_seconds(probe: Mapping[str, Any]) -> float:
    """How long a start may take."""
    each = _count(probe, "periodSeconds", _PERIOD_SECONDS) * _count(probe, "failureThreshold", _FAILURES)
    return max(2, each + _count(probe, "initialDelaySeconds", 0))


def _count(probe: Mapping[str, Any], key: str, default: int) -> int:
    value = probe.get(key, default)
    return value if isinstance(value, int) and 0 < value <= 100_000 else default


def _port(said: Any, container: Mapping[str, Any]) -> int | None:
    """A number, or the number of the container's port of that name."""
    named = [_map(item) for item in container.get("ports") or []]
    said = next((item.get("containerPort") for item in named if item.get("name") == said), said)
    number = int(said) if isinstance(said, int) or (isinstance(said, str) and said.isdigit()) else 0
    return number if 0 < number < 65_536 else None


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
