"""Warns of queues that lose their last consumer while tasks wait in them: the broker is asked for these alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.planning.lost_queues import LostQueue, lost_queues, warning
from fleet.core.spec import WorkerSpec
from fleet.errors import FleetError, UsageError
from fleet.operate.local_fleet import PlannedChange

ANSWER_SECONDS = 2.0
"""How long a broker may take: a plan is not held up by one that is down."""


def warned(change: PlannedChange) -> PlannedChange:
    """The change, whose plan warns of queues that it takes the last consumer of. What deploys nothing needs no broker,
    so it warns of none."""
    if change.manifest is None:
        return change
    lost = lost_queues(change.desired, change.plan, change.observed)
    if not lost:
        return change
    by_spec: dict[WorkerSpec, list[LostQueue]] = {}
    for one in lost:
        by_spec.setdefault(one.spec, []).append(one)
    told = [text for spec, some in by_spec.items() for text in _told(some, spec, change.secrets)]
    return replace(change, plan=replace(change.plan, warnings=(*change.plan.warnings, *told)))


def _told(lost: Sequence[LostQueue], spec: WorkerSpec, secrets: Mapping[str, str]) -> list[str]:
    backlog = _backlog([one.name for one in lost], spec, secrets)
    samples = [(one, backlog.queues.get(one.name, QueueSample()).waiting) for one in lost]
    return [text for one, waiting in samples if (text := warning(one, waiting, backlog.problem))]


def _backlog(queues: Sequence[str], spec: WorkerSpec, secrets: Mapping[str, str]) -> Backlog:
    """What waits at the broker of workers with this spec. ``secrets``: their values by name."""
    from fleet.broker.backlog.sampler import Sampler  # most plans ask no broker

    try:
        url, options = _url(spec, secrets), _transport_options(spec, secrets)
        sampler = Sampler(url, fleet=spec.fleet, options=options, answer_seconds=ANSWER_SECONDS)
    except FleetError as error:
        return Backlog({}, problem=error.message)
    try:
        return sampler.sample(queues)
    finally:
        sampler.close()


def _url(spec: WorkerSpec, secrets: Mapping[str, str]) -> str:
    broker = spec.broker
    url = secrets.get(broker.secret, "") if broker.secret else broker.url
    if not url:
        raise UsageError(f"the secret {broker.secret!r} is not declared any more" if broker.secret else "it has no URL")
    return url


def _transport_options(spec: WorkerSpec, secrets: Mapping[str, str]) -> Mapping[str, Any]:
    """How the app lays out its queues: the length of a wrong key would always be 0."""
    if not spec.app:
        return {}
    from fleet.inputs import facts

    hidden = [(variable, secrets[name]) for variable, name, _ in spec.secret_env if name in secrets]
    answer = facts.probe(spec.app, python=spec.python, workdir=spec.workdir, env=(*spec.env, *hidden))
    options: Mapping[str, Any] = answer.get("transportOptions") or {}
    return options
