"""A status as a table for people: PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleet.cli.output import Cell, Row, painted, table
from fleet.core.observed import RunningTask
from fleet.core.status import GroupStatus, Status, WorkerStatus, document
from fleet.core.text.format import duration, listed
from fleet.core.totals import Totals

HEAD = ("NAME", "POOL", "PID", "STATE", "DIGEST", "SLOTS", "DONE", "FAILED", "MEMORY", "UPTIME", "RUNS")
_TOTALS_HEAD = ("NAME", "RESTARTS", "CRASHES", "DONE", "FAILED")
_STATE_STYLES = {
    "ready": "good",
    "completed": "good",
    "starting": "wait",
    "draining": "wait",
    "stopped": "dim",
    "failed": "bad",
    "unknown": "bad",
}
_SHOWN_TASKS = 2
_MI = 1 << 20


def status_text(status: Status, *, footer: Sequence[str] = (), colour: bool = False) -> str:
    """The table, then what is missing and what should not be there."""
    rows = [row for group in status.groups.values() for row in _group_rows(group)]
    parts = [table(HEAD, rows, colour=colour)] if rows else []
    lines = [_headline(status, colour), *_problems(status), *footer]
    return "\n\n".join([*parts, "\n".join(lines)])


def totals_text(status: Status, *, colour: bool = False) -> str:
    """What each group and replica has done in all its processes."""
    rows = [row for group in status.groups.values() for row in _totals_rows(group)]
    return table(_TOTALS_HEAD, rows, colour=colour) if rows else _headline(status, colour)


def _totals_rows(group: GroupStatus) -> Iterator[Row]:
    yield _totals_row(group.name, group.totals, "bold")
    for worker in group.workers:
        yield _totals_row(f"  {worker.name}", worker.totals, "")


def _totals_row(name: str, totals: Totals, style: str) -> Row:
    counts = ((totals.restarts, ""), (totals.crashes, "bad"), (totals.done, ""), (totals.failed, "bad"))
    return [Cell(name, style), *(Cell(str(count), bad if count else "", right=True) for count, bad in counts)]


def _group_rows(group: GroupStatus) -> Iterator[Row]:
    ready = f"{group.ready_replicas}/{group.desired_replicas}"
    state = "paused" if group.paused else f"{ready} ready"
    yield [
        Cell(group.name, "bold"),
        Cell(group.pool),
        Cell("", right=True),
        Cell(state, "good" if group.ready else "wait"),
        Cell(""),
        Cell(f"{group.busy}/{group.desired_slots}", right=True),
        Cell(str(group.processed), right=True),
        Cell(str(group.failed), "bad" if group.failed else "", right=True),
        Cell(megabytes(sum(worker.memory_bytes for worker in group.workers)), right=True),
        Cell("", right=True),
        Cell(_counts(group)),
    ]
    for worker in group.workers:
        yield _worker_row(worker)
    for name in group.missing:
        yield [Cell(f"  {name}"), Cell(""), Cell("", right=True), Cell("missing", "bad"), *_blanks()]


def _counts(group: GroupStatus) -> str:
    """What differs from the ready ones: in the middle of a rollout all three words say different things."""
    if group.paused:
        return ""
    words = [
        f"{count} {word}"
        for count, word in ((group.up_to_date_replicas, "up to date"), (group.available_replicas, "available"))
        if count != group.ready_replicas
    ]
    return ", ".join(words)


def _blanks() -> list[Cell]:
    return [Cell(""), *(Cell("", right=True) for _ in range(5)), Cell("")]


def _worker_row(worker: WorkerStatus) -> Row:
    state = str(worker.trouble or worker.state) + (", held" if worker.held else "")
    return [
        Cell(f"  {worker.name}"),
        Cell(""),
        Cell(str(worker.pid) if worker.pid else "", right=True),
        Cell(state, state_style(worker)),
        Cell(worker.digest, "dim"),
        Cell(f"{worker.busy}/{worker.slots}", right=True),
        Cell(str(worker.processed), right=True),
        Cell(str(worker.failed), "bad" if worker.failed else "", right=True),
        Cell(megabytes(worker.memory_bytes), right=True),
        Cell(age(worker.uptime_seconds) if worker.pid else "", right=True),
        Cell(_runs(worker), "bad" if worker.drift and not worker.tasks else ""),
    ]


def state_style(worker: WorkerStatus) -> str:
    """The style of what a replica's state is shown in."""
    if worker.trouble:
        return "bad"
    return "wait" if worker.held else _STATE_STYLES[worker.state]


def _runs(worker: WorkerStatus) -> str:
    tasks = sorted(worker.tasks, key=lambda task: -task.since_seconds)
    shown = [_task(task) for task in tasks[:_SHOWN_TASKS]]
    more = [f"and {len(tasks) - _SHOWN_TASKS} more"] if len(tasks) > _SHOWN_TASKS else []
    words = [*([", ".join(shown)] if shown else []), *more, *([f"[{worker.drift}]"] if worker.drift else [])]
    return " ".join([*words, *([f"({worker.note})"] if worker.note else [])])


def _task(task: RunningTask) -> str:
    return f"{task.name} {age(task.since_seconds)}"


def _headline(status: Status, colour: bool) -> str:
    if not status.up:
        return painted(f"fleet {status.fleet} is down", "dim", colour=colour)
    word = "ready" if status.ready else "not ready"
    drift = ", differs from what was applied" if status.drifted else ""
    text = f"fleet {status.fleet}, revision {status.revision}: {word}{drift}"
    return painted(text, "good" if status.ready and not drift else "wait", colour=colour)


def _problems(status: Status) -> Iterator[str]:
    for group in status.groups.values():
        if not group.ready:
            short = [worker.name for worker in group.workers if not worker.ready and not worker.drift]
            names = listed([*group.missing, *short])
            what = f": {names}" if names else ""
            yield f"{group.name}: {group.ready_replicas} of {group.desired_replicas} ready{what}"
    if status.strays:
        pids = listed(f"{stray.pid} ({stray.replica})" for stray in status.strays)
        yield f"processes that supervisord does not run: {pids}; `fleet apply` or `fleet doctor --fix` ends them"


def megabytes(count_bytes: int) -> str:
    """Memory in Mi, the same unit in the whole column; empty for 0."""
    return f"{count_bytes / _MI:.0f}Mi" if count_bytes else ""


def age(seconds: float) -> str:
    """The two largest units: ``3.2s``, ``4m10s``, ``2h05m``, ``3d4h``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24}h"


def status_document(status: Status) -> dict[str, Any]:
    """The JSON document of a status; fleet's own programs are groups like any other."""
    made = document(status)
    made["groups"] |= made.pop("system", {})
    return made


_LOOK_HEAD = ("GROUP", "HAS", "NEED", "WANTS", "SHARE", "GETS", "QUEUE", "OLDEST", "WHY")


def look_text(look: Mapping[str, Any], *, colour: bool) -> str:
    """The JSON document of one look of the controller, a row per group."""
    groups: Mapping[str, Mapping[str, Any]] = look["groups"]
    healed = heals_text(look.get("heals", ()))
    if not groups:
        return "\n".join(part for part in (healed, look["note"]) if part) or "nothing to heal or move"
    rows = [[Cell(text) for text in _look_row(name, row)] for name, row in groups.items()]
    has = sum(row["has"] + row["draining"] + row["parked"] for row in groups.values())
    squeezed = "; somebody is short: needs come before wants" if look["squeezed"] else ""
    sums = f"budget {look['budget']} slots for the groups that move, {has} in use{squeezed}"
    return f"{table(_LOOK_HEAD, rows, colour=colour)}\n\n{sums}" + (f"\n{healed}" if healed else "")


def heals_text(heals: Sequence[Mapping[str, Any]]) -> str:
    """A line for each replica that was not as it should be, and what is done about it."""
    return "\n".join(
        f"{row['verdict']}: {row['step']} {row['replica']} ({row['class']}): {row['reason']}" for row in heals
    )


def _look_row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (row[key] for key in ("has", "need", "wants", "share", "gets"))
    queue = "?" if row["queue"] is None else str(row["queue"])
    return (name, *map(str, numbers), queue, _oldest(row), row["why"])


def _oldest(row: Mapping[str, Any]) -> str:
    """Seconds as text, with ``~`` for an estimate."""
    if row["oldestAge"] is None:
        return "-" if not row["queue"] else "?"
    return ("~" if row["ageEstimated"] else "") + duration(round(row["oldestAge"], 1))
