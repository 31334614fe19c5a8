"""health: a probe that takes milliseconds. It reads records and /proc, and needs neither a broker nor the app."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.cli.output import Cell, Output, table
from fleet.cli.target import Target, duration, fleet_of, output_flag, target_flags, target_of
from fleet.core.desired import CONTROLLER_GROUP, group_of, is_replica
from fleet.core.health import PATIENCE, Condition, Health, Patience, Probe, judge
from fleet.core.text.format import duration as in_words
from fleet.core.text.suggest import did_you_mean
from fleet.errors import UsageError
from fleet.replica.health_result import Wellness, read_result, result_file
from fleet.replica.pod_records import RECORD_VARIABLE, is_pod, records_of_pod
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView, read
from fleet.state import controller_heartbeat, trust
from fleet.state.paths import Places, home_of

_HEAD = ("NAME", "PID", "CONDITION", "BUSY", "HEARTBEAT", "WHY")
_STYLES = {
    **dict.fromkeys((Condition.ALIVE, Condition.READY, Condition.BUSY), "good"),
    **dict.fromkeys((Condition.STARTING, Condition.DRAINING, Condition.HELD), "wait"),
    Condition.STOPPED: "dim",
}


@dataclass(frozen=True, slots=True)
class _Examined:
    """One replica, examined."""

    name: str
    record: RecordView | None
    health: Health


def record_flags(parser: argparse.ArgumentParser) -> None:
    """Which replicas are meant, for a verb that reads records."""
    target_flags(parser, names=f"groups or replicas; default: the replica of ${RECORD_VARIABLE}, else all")
    parser.add_argument("--record", metavar="PATH", help="the record file of one replica")


def health_flags(parser: argparse.ArgumentParser) -> None:
    record_flags(parser)
    probes = [probe.value for probe in Probe]
    parser.add_argument("--probe", choices=probes, default="live", help="what decides the exit code (default: live)")
    parser.add_argument(
        "--least", type=_number, metavar="N", help="so many replicas must pass the probe; default: all that are asked"
    )
    parser.add_argument(
        "--patience",
        type=duration,
        metavar="TIME",
        help=f"how long without a heartbeat, a fetch, or past a time limit (default {PATIENCE.silence_seconds:g}s)",
    )
    output_flag(parser)


def health(args: argparse.Namespace, out: Output) -> int:
    """Exit 0 when every replica that was asked about passes the probe, or as many as --least says; else 1."""
    now, probe = time.time(), Probe(args.probe)
    patience = PATIENCE if args.patience is None else Patience(args.patience, args.patience, args.patience)
    found = [_examined(name, path, now, patience) for name, path in sorted(records_of(args).items())]
    passing = sum(one.health.passes(probe) for one in found)
    healthy = bool(found) and passing >= (len(found) if args.least is None else args.least)
    document = {
        "probe": probe.value,
        "healthy": healthy,
        "replicas": [_document(one, probe, now) for one in found],
    }
    rows = [_row(one, now) for one in found]
    out.either(document, table(_HEAD, rows, colour=out.colour) if rows else "nothing runs")
    return 0 if healthy else 1


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number of replicas: {text!r}")


def _examined(name: str, path: Path, now: float, patience: Patience) -> _Examined:
    record = read(path)
    living = record is not None and lives(record.pid, record.started_ticks)
    health = judge(record, lives=living, now=now, patience=patience)
    if record is not None and living and group_of(name) == CONTROLLER_GROUP:
        heartbeat = controller_heartbeat.read(Places(path.parent.parent.parent).controller_heartbeat)
        if problem := heartbeat.problem(now - record.started_at, now=now):
            health = Health(Condition.STUCK, problem)
    if record is not None and health.passes(Probe.READY):
        health = _by_checks(path, record, now) or health
    return _Examined(name, record, health)


def _by_checks(path: Path, record: RecordView, now: float) -> Health | None:
    """What its health checks say against it; None where they say nothing."""
    folder = path.parent.parent.parent  # of an account of its own: in ROOT/accounts/UID/records
    places = Places(folder.parent if folder.name == "accounts" else folder)
    kept = result_file(places.health, path.stem)
    result = read_result(kept, pid=record.pid)
    if not result.at:
        return None
    wellness, reason = result.wellness(lived_seconds=now - record.started_at)
    if wellness is Wellness.WELL:
        return None
    return Health(Condition.STARTING if wellness is Wellness.YOUNG else Condition.UNHEALTHY, reason)


# --- which records


def records_of(args: argparse.Namespace) -> Mapping[str, Path]:
    """Name of a replica -> where its record should be."""
    if args.record:
        if args.words or args.fleet:
            raise UsageError("--record and a fleet at once", hint="a record names its replica already")
        return {Path(args.record).stem: Path(args.record)}
    if is_pod(os.environ) and not args.words and not args.fleet:
        return records_of_pod(os.environ)
    target = target_of(args)
    places = _places(target)
    running = sorted(path.stem for path in places.conf_d.glob("*.conf"))
    return {name: places.record_file(name) for name in _chosen(target, running)}


def _places(target: Target) -> Places:
    """The paths of the fleet that --fleet names, without importing what reads manifests and settings."""
    places = Places.of(home_of(os.environ), target.fleet) if target.fleet else None
    if places is None or not places.run.is_dir():
        return fleet_of(target).places
    trust.check(places)
    return places


def _chosen(target: Target, running: list[str]) -> Iterator[str]:
    if not target.names:
        yield from running
    for word in target.names:
        group = [name for name in running if group_of(name) == word]
        if not group and not is_replica(word):
            known = sorted({*(group_of(name) for name in running), *running})
            raise UsageError(f"no replica of {word!r} is to run", hint=did_you_mean(word, known) or "there are none")
        yield from group or [word]


# --- how they are shown


def _row(one: _Examined, now: float) -> list[Cell]:
    record, health = one.record, one.health
    own = record if record is not None and not record.foreign else None
    return [
        Cell(one.name),
        Cell(str(record.pid) if record else "", right=True),
        Cell(_condition(health), _STYLES.get(health.condition, "bad")),
        Cell(f"{own.busy}/{own.slots}" if own else "", right=True),
        Cell(f"{in_words(max(0, round(now - own.heartbeat_at)))} ago" if own else "", right=True),
        Cell(health.reason),
    ]


def _condition(health: Health) -> str:
    if health.condition is not Condition.BUSY or health.busy_until is None:
        return str(health.condition)
    return f"busy until {time.strftime('%H:%M:%S', time.localtime(health.busy_until))}"


def _document(one: _Examined, probe: Probe, now: float) -> dict[str, Any]:
    record, health = one.record, one.health
    memory = _pod_memory_bytes()
    known: dict[str, Any] = {} if record is None else _facts(record, now)
    return {
        "name": one.name,
        "condition": health.condition.value,
        "healthy": health.passes(probe),
        "reason": health.reason,
        "busyUntil": health.busy_until,
        **known,
        **({} if memory is None else {"memory": memory}),
    }


def _pod_memory_bytes() -> int | None:
    """What this pod's container uses, as its control group counts; None on a host, where that means something else."""
    if "FLEET_POD" not in os.environ:
        return None
    for path in ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"):
        try:
            return int(Path(path).read_bytes())
        except (OSError, ValueError):
            continue
    return None


def _facts(record: RecordView, now: float) -> dict[str, Any]:
    """The record as JSON; a record written by the launcher has no slots and no tasks."""
    if record.foreign:
        return {"pid": record.pid}
    return {
        "pid": record.pid,
        "slots": record.slots,
        "busy": record.busy,
        "processed": record.processed,
        "failed": record.failed,
        "heartbeat": round(now - record.heartbeat_at, 3),
        "tasks": [
            {
                "id": task.task_id,
                "name": task.task_name,
                "since": round(now - task.since, 3),
                "until": task.until or None,
            }
            for task in record.tasks
        ],
    }
