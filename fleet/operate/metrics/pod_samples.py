"""What a pod tells Prometheus of its replicas, from their records: PURE.

The names are those of a fleet on a host; sums over pods give the same numbers. What a pod cannot know is not there: how
many there should be, what waits in queues. The memory and processor time of its container are known to the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet.core.desired import group_of
from fleet.core.health import Probe, judge
from fleet.operate.metrics.samples import Sample, by_group, of_tasks
from fleet.replica.record import RecordView
from fleet.replica.task_counters import CountersView


@dataclass(frozen=True, slots=True)
class PodReplica:
    """One replica in a pod.  record: None where there is none.  lives: its process does."""

    name: str
    record: RecordView | None
    lives: bool
    counters: CountersView | None = None


def pod_samples(fleet: str, replicas: Iterable[PodReplica], *, now: float) -> Iterator[Sample]:
    """The samples of a pod's replicas, and of their group as far as it is in this pod."""
    every = list(replicas)
    for group in sorted({group_of(one.name) for one in every}):
        yield from _of_group(fleet, group, [one for one in every if group_of(one.name) == group], now)
    tasks = by_group((one.name, one.counters.tasks) for one in every if one.counters is not None)
    yield from of_tasks(fleet, tasks)
    for one in every:
        labels = (fleet, group_of(one.name), one.name)
        for metric, value in _of_replica(one, now).items():
            yield Sample(metric, labels, float(value))


def _of_group(fleet: str, group: str, replicas: list[PodReplica], now: float) -> Iterator[Sample]:
    living = [one.record for one in replicas if one.record is not None and one.lives]
    values = {
        "fleet_group_replicas_ready": sum(_is_ready(one, now) for one in replicas),
        "fleet_group_slots": sum(record.slots for record in living),
        "fleet_group_slots_busy": sum(record.busy for record in living),
        "fleet_group_tasks_reserved": sum(record.reserved for record in living),
    }
    for metric, value in values.items():
        yield Sample(metric, (fleet, group), float(value))


def _is_ready(one: PodReplica, now: float) -> bool:
    return judge(one.record, lives=one.lives, now=now).passes(Probe.READY)


def _of_replica(one: PodReplica, now: float) -> Mapping[str, float]:
    values: dict[str, float] = {"fleet_replica_ready": _is_ready(one, now)}
    record = one.record
    if record is not None and one.lives:
        values |= {
            "fleet_replica_held": record.hold,
            "fleet_replica_slots": record.slots,
            "fleet_replica_crashes": record.crashes,
            "fleet_replica_start_time_seconds": record.started_at,
        }
        if not record.foreign:
            ages = [max(0.0, now - task.since) for task in record.tasks]
            values |= {
                "fleet_replica_slots_busy": record.busy,
                "fleet_replica_tasks_reserved": record.reserved,
                "fleet_replica_oldest_task_seconds": max(ages, default=0.0),
                "fleet_replica_tasks_ended_total": record.processed,
                "fleet_replica_tasks_failed_total": record.failed,
                "fleet_replica_tasks_retried_total": record.retried,
                "fleet_replica_busy_seconds_total": record.busy_seconds + sum(ages),
            }
    if one.counters is not None:
        values |= {
            "fleet_replica_starts_total": one.counters.starts,
            "fleet_replica_reconnects_total": one.counters.reconnects,
        }
    return values
