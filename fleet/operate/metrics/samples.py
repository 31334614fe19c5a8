"""From readings to samples: PURE. Every label has a bounded number of values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fleet.core.desired import group_of
from fleet.core.observed import Observed, ObservedReplica
from fleet.core.status import GroupStatus, Status
from fleet.operate.metrics.reading import EventCounts, FleetReading, SourceReading
from fleet.replica.task_counters import ENDS, MOST_TASKS, OTHER, Histogram, TaskCounts, added_up

MOST_KINDS = 60
"""So many kinds of events are told apart; an audit holds what anybody wrote into it."""


class Sample(NamedTuple):
    """One value, by the name of its metric; labels in the order of the catalogue. value: a histogram for those."""

    metric: str
    labels: tuple[str, ...]
    value: float | Histogram


def samples(fleets: Iterable[FleetReading], sources: Iterable[SourceReading] = ()) -> Iterator[Sample]:
    """Everything that is known."""
    for reading in fleets:
        yield from _of_fleet(reading)
    for source in sources:
        yield from _of_source(source)


def by_group(
    tasks: Iterable[tuple[str, Mapping[str, TaskCounts]]], chosen: Mapping[str, Sequence[str]] | None = None
) -> dict[str, dict[str, TaskCounts]]:
    """Counts of replicas added up by group and task; (replica, its tasks) in any order.

    At most MOST_TASKS names per group have counts of their own; the rest is OTHER. chosen: those that had them before
    and keep them, so that no sum ever decreases; then those with the most runs.
    """
    groups: dict[str, dict[str, list[TaskCounts]]] = {}
    for replica, counts in tasks:
        into = groups.setdefault(group_of(replica), {})
        for name, one in counts.items():
            into.setdefault(name, []).append(one)
    sums = {group: {name: added_up(ones) for name, ones in named.items()} for group, named in groups.items()}
    return {group: _bounded(counts, (chosen or {}).get(group, ())) for group, counts in sums.items()}


def _bounded(counts: dict[str, TaskCounts], kept: Sequence[str]) -> dict[str, TaskCounts]:
    named = [name for name in counts if name != OTHER]
    if len(named) <= MOST_TASKS:
        return counts
    ranked = sorted(named, key=lambda name: (name not in kept, -sum(counts[name].ends), name))
    own = {name: counts[name] for name in ranked[:MOST_TASKS]}
    rest = counts.get(OTHER, TaskCounts())
    for name in ranked[MOST_TASKS:]:
        rest += counts[name]
    return {**own, OTHER: rest}


# --- one fleet


def _of_fleet(reading: FleetReading) -> Iterator[Sample]:
    own = (reading.fleet,)
    yield Sample("fleet_readable", own, float(not reading.problem))
    yield Sample("fleet_read_seconds", own, reading.seconds)
    status, observed = reading.status, reading.observed
    if status is None or observed is None:
        return
    yield from _whole(reading, status)
    reserved = _reserved(observed)
    for group in status.groups.values():
        yield from _of_group(reading.fleet, group, reserved.get(group.name, 0))
    yield from _of_tasks(reading.fleet, reading.tasks)
    yield from _of_controller(reading)
    yield from _of_queues(reading)
    for replica in observed.replicas.values():
        yield from _of_replica(reading, replica)
    yield from _of_events(reading.fleet, reading.events)


def _whole(reading: FleetReading, status: Status) -> Iterator[Sample]:
    values: dict[str, float] = {
        "fleet_up": status.up,
        "fleet_ready": status.ready,
        "fleet_drifted": status.drifted,
        "fleet_stray_processes": len(status.strays),
        "fleet_revision": status.revision,
        "fleet_good_revision": reading.good,
    }
    if reading.budget is not None:
        values["fleet_budget_slots"] = reading.budget
    yield from _each(values, (reading.fleet,))


def _reserved(observed: Observed) -> Counter[str]:
    """By group: messages that its workers hold."""
    found: Counter[str] = Counter()
    for one in observed.replicas.values():
        found[one.group] += one.reserved
    return found


def _of_group(fleet: str, group: GroupStatus, reserved: int) -> Iterator[Sample]:
    yield Sample("fleet_group_info", (fleet, group.name, group.pool), 1.0)
    values: dict[str, float] = {
        "fleet_group_replicas_desired": group.desired_replicas,
        "fleet_group_replicas_ready": group.ready_replicas,
        "fleet_group_replicas_available": group.available_replicas,
        "fleet_group_replicas_up_to_date": group.up_to_date_replicas,
        "fleet_group_paused": group.paused,
        "fleet_group_slots_desired": group.desired_slots,
        "fleet_group_slots": sum(worker.slots for worker in group.workers),
        "fleet_group_slots_busy": group.busy,
        "fleet_group_tasks_reserved": reserved,
    }
    yield from _each(values, (fleet, group.name))


def _of_tasks(fleet: str, groups: Mapping[str, Mapping[str, TaskCounts]]) -> Iterator[Sample]:
    for group, tasks in groups.items():
        for task, counts in tasks.items():
            labels = (fleet, group, task)
            for end, count in zip(ENDS, counts.ends, strict=True):
                yield Sample("fleet_tasks_total", (*labels, end), count)
            if counts.run.count:
                yield Sample("fleet_task_run_seconds", labels, counts.run)
            if counts.wait.count:
                yield Sample("fleet_task_wait_seconds", labels, counts.wait)


_OF_LOOK = {
    "need": "fleet_group_slots_needed",
    "wants": "fleet_group_slots_wanted",
    "share": "fleet_group_slots_share",
    "gets": "fleet_group_slots_given",
}


def _of_controller(reading: FleetReading) -> Iterator[Sample]:
    for group, count in reading.events.moves.items():
        yield Sample("fleet_group_slot_moves_total", (reading.fleet, group), count)
    look = reading.look
    if look is None:
        return
    own = (reading.fleet,)
    yield Sample("fleet_controller_look_timestamp_seconds", own, float(look["at"]))
    if not look["groups"]:
        return
    yield Sample("fleet_controller_slots_budget", own, look["budget"])
    yield Sample("fleet_controller_squeezed", own, float(look["squeezed"]))
    for group, row in look["groups"].items():
        for key, metric in _OF_LOOK.items():
            if isinstance(row.get(key), int | float):
                yield Sample(metric, (reading.fleet, group), float(row[key]))


def _of_queues(reading: FleetReading) -> Iterator[Sample]:
    backlog = reading.backlog
    if backlog is None:
        return
    yield Sample("fleet_broker_up", (reading.fleet,), float(not backlog.problem))
    for queue, one in sorted(backlog.queues.items()):
        labels = (reading.fleet, queue)
        if one.waiting is None:
            continue
        yield Sample("fleet_queue_messages", labels, one.waiting)
        if one.oldest_sent_at is not None:
            yield Sample("fleet_queue_oldest_age_seconds", labels, max(0.0, reading.now - one.oldest_sent_at))
        elif one.waiting == 0:
            yield Sample("fleet_queue_oldest_age_seconds", labels, 0.0)


def _of_replica(reading: FleetReading, seen: ObservedReplica) -> Iterator[Sample]:
    labels = (reading.fleet, seen.group, seen.name)
    yield Sample("fleet_replica_state", (*labels, str(seen.state)), 1.0)
    values: dict[str, float] = {
        "fleet_replica_ready": seen.is_ready,
        "fleet_replica_held": seen.held,
        "fleet_replica_slots": seen.slots,
        "fleet_replica_crashes": seen.crashes,
    }
    if seen.running:
        values |= {
            "fleet_replica_memory_bytes": seen.memory_bytes,
            "fleet_replica_cpu_seconds_total": seen.cpu_seconds,
            "fleet_replica_start_time_seconds": reading.now - seen.uptime_seconds,
        }
    if seen.counts:
        values |= {
            "fleet_replica_slots_busy": seen.busy,
            "fleet_replica_tasks_reserved": seen.reserved,
            "fleet_replica_oldest_task_seconds": max((task.since_seconds for task in seen.tasks), default=0.0),
            "fleet_replica_tasks_ended_total": seen.processed,
            "fleet_replica_tasks_failed_total": seen.failed,
            "fleet_replica_tasks_retried_total": seen.retried,
            "fleet_replica_busy_seconds_total": seen.busy_seconds,
        }
    if (counters := reading.counters.get(seen.name)) is not None:
        values |= {
            "fleet_replica_starts_total": counters.starts,
            "fleet_replica_reconnects_total": counters.reconnects,
        }
    if reading.backlog is not None and reading.backlog.held is not None and seen.name in reading.backlog.held:
        values["fleet_replica_messages_leased"] = reading.backlog.held[seen.name]
    values["fleet_replica_log_dropped_bytes_total"] = reading.dropped.get(seen.name, 0)
    yield from _each(values, labels)


def _of_events(fleet: str, counts: EventCounts) -> Iterator[Sample]:
    kinds = sorted(counts.events, key=lambda kind: (-counts.events[kind], kind))
    for kind in kinds[:MOST_KINDS]:
        yield Sample("fleet_events_total", (fleet, kind), counts.events[kind])
    if rest := sum(counts.events[kind] for kind in kinds[MOST_KINDS:]):
        yield Sample("fleet_events_total", (fleet, OTHER), rest)
    for (verb, outcome), count in counts.changes.items():
        yield Sample("fleet_changes_total", (fleet, verb, outcome), count)
    for (kind, verdict), count in counts.heals.items():
        yield Sample("fleet_heals_total", (fleet, kind, verdict), count)


def _each(values: Mapping[str, float], labels: tuple[str, ...]) -> Iterator[Sample]:
    for metric, value in values.items():
        yield Sample(metric, labels, float(value))


# --- one source


def _of_source(reading: SourceReading) -> Iterator[Sample]:
    document, own = reading.document, (reading.source,)
    if document is None:
        yield Sample("fleet_sync_ready", own, 0.0)
        return
    yield Sample("fleet_sync_ready", own, float(document["ready"]))
    yield Sample("fleet_sync_running", own, float(document["running"]))
    yield Sample("fleet_sync_suspended", own, float(bool(document["suspended"])))
    for condition in document["conditions"]:
        yield Sample("fleet_sync_condition", (*own, str(condition["type"])), float(condition["status"] == "True"))
    yield from _stages("fleet_sync_failures", own, document["failures"])
    yield from _stages("fleet_sync_look_timestamp_seconds", own, document["lookedAt"])


def _stages(metric: str, own: tuple[str, ...], values: Mapping[str, Any]) -> Iterator[Sample]:
    for stage, value in values.items():
        yield Sample(metric, (*own, stage), float(value))
