"""Whether and how the tasks of a worker are traced, from its spec."""

from __future__ import annotations

import logging

from fleet.tracing import exporting
from fleet.tracing.sending import system_of
from fleet.worker.options import WorkerOptions
from fleet.worker.tracing.slot import SlotTracing
from pools.traits import TRAITS

log = logging.getLogger("fleet.worker")


def tracing_of(options: WorkerOptions, *, app_kind: str) -> SlotTracing | None:
    """None: they are not. A worker that cannot trace says so, and works without."""
    spec = options.spec
    if not spec.tracing.on:
        return None
    if not exporting.is_installed():
        log.warning("tasks are not traced, though spec.tracing asks for it: %s", exporting.MISSING)
        return None
    return SlotTracing(
        spec.tracing,
        attributes=(
            ("service.name", spec.group),
            ("service.namespace", spec.fleet),
            ("service.instance.id", options.replica),
            ("fleet.pool", spec.pool.type),
            ("fleet.app.kind", app_kind),
        ),
        system=system_of(options.broker_url),
        own_processes=TRAITS[spec.pool.type].own_processes,
    )
