"""Every metric by name, with its kind, its labels and what it says: the page of metrics is made from this table."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]

FLEET = ("fleet",)
GROUP = ("fleet", "group")
REPLICA = ("fleet", "group", "replica")
TASK = ("fleet", "group", "task")


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. name: as Prometheus stores it, a counter with ``_total``."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


CHAPTERS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "The fleet",
        (
            Metric("fleet_readable", "gauge", FLEET, "1 when the fleet could be read for this scrape, else 0."),
            Metric("fleet_read_seconds", "gauge", FLEET, "How long reading the fleet took for this scrape."),
            Metric("fleet_up", "gauge", FLEET, "1 while the fleet's supervisord runs."),
            Metric("fleet_ready", "gauge", FLEET, "1 when every wanted replica is there, as wanted and ready."),
            Metric("fleet_drifted", "gauge", FLEET, "1 when something is missing, outdated or not wanted."),
            Metric(
                "fleet_stray_processes",
                "gauge",
                FLEET,
                "Processes with the fleet's mark that its supervisord does not run.",
            ),
            Metric("fleet_revision", "gauge", FLEET, "Revision that was applied last; 0 before the first apply."),
            Metric("fleet_good_revision", "gauge", FLEET, "Last revision of which every replica became ready."),
            Metric("fleet_budget_slots", "gauge", FLEET, "spec.concurrency: slots of all groups together."),
        ),
    ),
    (
        "Groups",
        (
            Metric("fleet_group_info", "gauge", ("fleet", "group", "pool"), "Always 1; carries the pool of the group."),
            Metric("fleet_group_replicas_desired", "gauge", GROUP, "Replicas that the group is to have."),
            Metric("fleet_group_replicas_ready", "gauge", GROUP, "Replicas that are as wanted and ready."),
            Metric(
                "fleet_group_replicas_available",
                "gauge",
                GROUP,
                "Replicas that take tasks and were ready for minReady.",
            ),
            Metric(
                "fleet_group_replicas_up_to_date",
                "gauge",
                GROUP,
                "Running replicas with the wanted digest and settings.",
            ),
            Metric("fleet_group_paused", "gauge", GROUP, "1 while the group is paused."),
            Metric("fleet_group_slots_desired", "gauge", GROUP, "Slots that the group is to have."),
            Metric("fleet_group_slots", "gauge", GROUP, "Slots of the replicas that are there."),
            Metric("fleet_group_slots_busy", "gauge", GROUP, "Slots in which a task runs."),
            Metric(
                "fleet_group_tasks_reserved", "gauge", GROUP, "Messages that workers hold, running or waiting in them."
            ),
        ),
    ),
    (
        "The controller",
        (
            Metric(
                "fleet_controller_look_timestamp_seconds",
                "gauge",
                FLEET,
                "When the controller looked last, in Unix seconds.",
            ),
            Metric("fleet_controller_slots_budget", "gauge", FLEET, "Slots for the groups that autoscale."),
            Metric(
                "fleet_controller_squeezed",
                "gauge",
                FLEET,
                "1 while somebody is short, so that needs come before wants.",
            ),
            Metric(
                "fleet_group_slots_needed",
                "gauge",
                GROUP,
                "Slots the group needs for its work, as the controller decided.",
            ),
            Metric("fleet_group_slots_wanted", "gauge", GROUP, "Slots the group could use."),
            Metric("fleet_group_slots_share", "gauge", GROUP, "Slots the group has a right to, by weight."),
            Metric("fleet_group_slots_given", "gauge", GROUP, "Slots the group gets."),
            Metric(
                "fleet_group_slot_moves_total",
                "counter",
                GROUP,
                "Times that the controller changed the slots of the group.",
            ),
        ),
    ),
    (
        "Tasks, by name",
        (
            Metric(
                "fleet_tasks_total",
                "counter",
                (*TASK, "outcome"),
                "Runs that ended: done, failed, retried, revoked (also expired), dead, lost (its process died).",
            ),
            Metric(
                "fleet_task_run_seconds", "histogram", TASK, "How long runs took, from the start in a slot to the end."
            ),
            Metric(
                "fleet_task_wait_seconds",
                "histogram",
                TASK,
                "How long tasks that say when they were sent waited for their start.",
            ),
        ),
    ),
    (
        "Queues",
        (
            Metric("fleet_broker_up", "gauge", FLEET, "1 when the broker answered all that it was asked last."),
            Metric("fleet_queue_messages", "gauge", ("fleet", "queue"), "Messages that wait and nobody has yet."),
            Metric(
                "fleet_queue_oldest_age_seconds",
                "gauge",
                ("fleet", "queue"),
                "How long the next message has waited; 0 for an empty queue, absent where nobody knows.",
            ),
        ),
    ),
    (
        "Replicas",
        (
            Metric("fleet_replica_ready", "gauge", REPLICA, "1 while it works, or is held on purpose."),
            Metric(
                "fleet_replica_state",
                "gauge",
                (*REPLICA, "state"),
                "1 for the state it is in; other states are absent.",
            ),
            Metric("fleet_replica_held", "gauge", REPLICA, "1 while it is told to take no work."),
            Metric("fleet_replica_slots", "gauge", REPLICA, "Its slots."),
            Metric("fleet_replica_slots_busy", "gauge", REPLICA, "Slots in which a task runs."),
            Metric("fleet_replica_tasks_reserved", "gauge", REPLICA, "Messages it holds, running or waiting in it."),
            Metric(
                "fleet_replica_messages_leased",
                "gauge",
                REPLICA,
                "Messages that the broker counts as delivered to it, where the broker tells.",
            ),
            Metric(
                "fleet_replica_oldest_task_seconds",
                "gauge",
                REPLICA,
                "Age of the task that has run longest; 0 while none runs.",
            ),
            Metric(
                "fleet_replica_tasks_ended_total",
                "counter",
                REPLICA,
                "Tasks that came to their end since the process began.",
            ),
            Metric("fleet_replica_tasks_failed_total", "counter", REPLICA, "Those of them that failed."),
            Metric(
                "fleet_replica_tasks_retried_total",
                "counter",
                REPLICA,
                "Runs that ended in a retry since the process began.",
            ),
            Metric(
                "fleet_replica_busy_seconds_total",
                "counter",
                REPLICA,
                "Seconds that its slots spent on tasks since the process began.",
            ),
            Metric("fleet_replica_memory_bytes", "gauge", REPLICA, "Resident memory of all its processes."),
            Metric("fleet_replica_cpu_seconds_total", "counter", REPLICA, "Processor time of all its processes."),
            Metric("fleet_replica_start_time_seconds", "gauge", REPLICA, "When its process began, in Unix seconds."),
            Metric(
                "fleet_replica_starts_total", "counter", REPLICA, "Processes of it that began work, over all restarts."
            ),
            Metric(
                "fleet_replica_reconnects_total", "counter", REPLICA, "Connections to the broker that were made again."
            ),
            Metric(
                "fleet_replica_crashes",
                "gauge",
                REPLICA,
                "Earlier processes of it that crashed, as far back as its launcher remembers.",
            ),
            Metric(
                "fleet_replica_log_dropped_bytes_total",
                "counter",
                REPLICA,
                "Bytes of its log that were dropped in floods.",
            ),
        ),
    ),
    (
        "What happened",
        (
            Metric("fleet_events_total", "counter", ("fleet", "event"), "Entries of the audit, by kind."),
            Metric(
                "fleet_changes_total",
                "counter",
                ("fleet", "verb", "outcome"),
                "Changes that ended: rollouts, drains, restarts and others, by verb and outcome.",
            ),
            Metric(
                "fleet_heals_total",
                "counter",
                ("fleet", "class", "verdict"),
                "What was wrong with replicas: started (healed), parked (given up), warned (left as it is).",
            ),
        ),
    ),
    (
        "Sync",
        (
            Metric(
                "fleet_sync_ready",
                "gauge",
                ("source",),
                "1 when all conditions hold and the fleet is at the commit that was seen.",
            ),
            Metric("fleet_sync_running", "gauge", ("source",), "1 while a process follows the source."),
            Metric("fleet_sync_suspended", "gauge", ("source",), "1 while somebody suspended it."),
            Metric(
                "fleet_sync_condition", "gauge", ("source", "type"), "1 where the condition holds, 0 where it does not."
            ),
            Metric(
                "fleet_sync_failures",
                "gauge",
                ("source", "stage"),
                "Failures in a row, fetching or changing the fleet.",
            ),
            Metric(
                "fleet_sync_look_timestamp_seconds",
                "gauge",
                ("source", "stage"),
                "When it looked last, in Unix seconds.",
            ),
        ),
    ),
)

METRICS = MappingProxyType({metric.name: metric for _, metrics in CHAPTERS for metric in metrics})
