"""Checks of the embedded broker."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.broker import embedded
from fleet.core.desired import BROKER_GROUP, split_name
from fleet.errors import FleetError
from fleet.operate.doctor.finding import Examined, Finding
from fleet.settings import Settings


def broker_findings(examined: Examined) -> Iterator[Finding]:
    has = any(split_name(name)[0] == BROKER_GROUP for name in examined.folder.documents())
    yield from broker_server_findings(examined.settings, wanted=examined.embedded_wanted or has)
    if not has or examined.observed is None or not examined.observed.up:
        return
    if embedded.ping(embedded.url(examined.places)):
        yield Finding("info", "broker", f"answers on {examined.places.broker_socket}")
    else:
        hint = f"`fleet logs {BROKER_GROUP}` says why"
        yield Finding(
            "error", "broker", f"the embedded broker does not answer on {examined.places.broker_socket}", hint
        )


def broker_server_findings(settings: Settings, *, wanted: bool) -> Iterator[Finding]:
    try:
        yield Finding("info", "broker", f"`broker: embedded` would run {embedded.find_server(settings.redis_server)}")
    except FleetError as error:
        yield Finding("error" if wanted else "info", "broker", error.message, error.hint)
