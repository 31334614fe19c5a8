"""What pages show of a fleet at one moment, as JSON has it: PURE. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.core.autoscale.sample import Backlog
from fleet.core.desired import Desired
from fleet.core.observed import State
from fleet.core.status import GroupStatus, Status, WorkerStatus
from fleet.replica.record import RecordView

Row = dict[str, Any]
Rows = dict[str, Row]

_OF_LOOK = ("need", "wants", "share", "gets", "why", "burst")


def head(status: Status, *, budget: int | None, good: int) -> Row:
    """The fleet as a whole. budget: slots of all groups, None without one."""
    return {
        "fleet": status.fleet,
        "revision": status.revision,
        "good": good,
        "ready": status.ready,
        "up": status.up,
        "drifted": status.drifted,
        "budget": budget,
        "strays": len(status.strays),
        "controller": None,
        "problem": "",
    }


def problem_head(fleet: str, problem: str) -> Row:
    """Of a fleet that cannot be read."""
    none = {"revision": 0, "good": 0, "ready": False, "up": False, "drifted": False, "budget": None, "strays": 0}
    return {"fleet": fleet, **none, "controller": None, "problem": problem}


def group_rows(status: Status, desired: Desired | None) -> Rows:
    """By group: what it is to be."""
    return {name: _group(group, desired) for name, group in status.groups.items()}


def decided(head: Row, groups: Rows, look: Mapping[str, Any] | None) -> tuple[Row, Rows]:
    """The same with what the controller decided last; None: it does not run."""
    said = look["groups"] if look is not None else {}
    about = None if look is None else {key: look[key] for key in ("at", "budget", "squeezed", "note")}
    found = {name: {**row, **{key: said.get(name, {}).get(key) for key in _OF_LOOK}} for name, row in groups.items()}
    return {**head, "controller": about}, found


def _group(group: GroupStatus, desired: Desired | None) -> Row:
    wanted = desired.groups.get(group.name) if desired is not None else None
    return {
        "pool": group.pool,
        "system": group.system,
        "paused": group.paused,
        "desired": group.desired_replicas,
        "ready": group.ready_replicas,
        "available": group.available_replicas,
        "slots": group.desired_slots,
        "missing": list(group.missing),
        "scaling": wanted.scaling if wanted is not None else "",
        "reason": wanted.reason if wanted is not None else "",
        "queues": [queue.name for queue in wanted.spec.queues] if wanted is not None else [],
        **dict.fromkeys(_OF_LOOK),
    }


def replica_rows(status: Status, *, now: float) -> Rows:
    """By replica, without what only its record says at every moment: see :func:`with_record`."""
    return {one.name: _replica(group.name, one, now) for group in status.groups.values() for one in group.workers}


def _replica(group: str, one: WorkerStatus, now: float) -> Row:
    return {
        "group": group,
        "state": str(one.state),
        "ready": one.ready,
        "held": one.held,
        "trouble": str(one.trouble),
        "note": one.note,
        "drift": one.drift,
        "pid": one.pid,
        "slots": one.slots,
        "busy": one.busy,
        "processed": one.processed,
        "failed": one.failed,
        "memory": one.memory_bytes,
        "startedAt": round(now - one.uptime_seconds) if one.pid else None,
        "tasks": [],
    }


def with_record(row: Row, record: RecordView | None) -> Row:
    """The row with what the record of its process says now. A task: id, name, since when, until when (0: no limit)."""
    if record is None or record.pid != row["pid"] or row["pid"] is None:
        return row
    tasks = [[one.task_id, one.task_name, _hundredths(one.since), _hundredths(one.until)] for one in record.tasks]
    live = {"busy": record.busy, "processed": record.processed, "failed": record.failed, "tasks": tasks}
    return {**row, **live, "startedAt": round(record.started_at)}


def _hundredths(seconds: float) -> float:
    """Rounded to them: by ``round(seconds, 2)`` it takes ten times as long, and pages ask for thousands a second."""
    return round(seconds * 100) / 100


def mark(record: RecordView | None) -> tuple[object, ...]:
    """What of a record changes only when the replica itself does: then the whole fleet is looked at again."""
    if record is None:
        return ()
    return (record.pid, record.digest, record.state, record.slots, record.hold, record.note, record.live)


def queue_rows(backlog: Backlog | None, groups: Rows) -> Row:
    """What waits, by queue, with the groups that take from it. known: whether the broker was asked."""
    takers: dict[str, list[str]] = {}
    for name, group in groups.items():
        for queue in group["queues"]:
            takers.setdefault(queue, []).append(name)
    asked = backlog.queues if backlog is not None else {}
    queues = {}
    for name in sorted(takers.keys() | asked.keys()):
        sample = asked.get(name)
        queues[name] = {
            "waiting": sample.waiting if sample is not None else None,
            "oldestAt": sample.oldest_sent_at if sample is not None else None,
            "groups": takers.get(name, []),
        }
    return {"known": backlog is not None, "problem": backlog.problem if backlog is not None else "", "queues": queues}


def slots_now(groups: Rows, replicas: Rows) -> dict[str, Sequence[int | None]]:
    """By group, for the picture of the last hour: busy, has, is to have, needs, gets. fleet's own programs left out."""
    sums = {name: [0, 0] for name, group in groups.items() if not group["system"]}
    for row in replicas.values():
        if row["group"] in sums and row["pid"] is not None:
            sums[row["group"]][0] += row["busy"]
            sums[row["group"]][1] += row["slots"]
    return {
        name: (busy, has, groups[name]["slots"], groups[name]["need"], groups[name]["gets"])
        for name, (busy, has) in sums.items()
    }


def sums(head: Row, groups: Rows, replicas: Rows) -> Row:
    """The head with what its groups add up to, for the page of all fleets."""
    own = {name: group for name, group in groups.items() if not group["system"]}
    rows = [row for row in replicas.values() if row["group"] in own]
    return {
        **head,
        "groups": len(own),
        "replicas": {name: sum(one[name] for one in own.values()) for name in ("ready", "desired")},
        "slots": {"busy": sum(row["busy"] for row in rows), "desired": sum(one["slots"] for one in own.values())},
        "failed": sum(row["failed"] for row in rows),
        "troubled": sum(bool(row["trouble"]) or row["state"] == State.FAILED for row in rows),
    }


def changed(before: Rows, after: Rows) -> tuple[Rows, list[str]]:
    """The rows that are other than before, and the names of those that are gone."""
    return {name: row for name, row in after.items() if before.get(name) != row}, sorted(before.keys() - after.keys())
