"""The last results side by side: what was measured, Celery's figure, fleet's, and how many times as good that is.

Reads ``results/`` and measures nothing. In brackets: the smallest and the largest run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import figures

Spread = dict[str, float]
MOST_LOAD = 1.0
"""Per processor before a measurement; above it a figure is marked."""


class Row(NamedTuple):
    """One line. ratio: None where Celery has nothing like it."""

    what: str
    celery: str
    fleet: str
    ratio: float | None
    mark: str


def load(name: str) -> dict[str, Any]:
    """A result file; empty where there is none."""
    path = figures.RESULTS / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": [], "machine": {}}
    return document


def shown(one: Spread) -> str:
    """A figure with its spread."""
    return " ".join((f"{one['median']:.4g}", f"[{one['min']:.4g} to {one['max']:.4g}]"))


def mark_of(document: dict[str, Any]) -> str:
    """How loaded the machine was, where it was."""
    machine = document["machine"]
    loads = machine.get("loadsBefore") or [machine.get("load", 0.0)]
    return f"load {max(loads):.0f}" if max(loads) > MOST_LOAD * machine.get("cpus", 1) else ""


def against(what: str, celery: Spread | None, fleet: Spread, *, mark: str, less_is_better: bool = False) -> Row:
    """Fleet beside Celery."""
    if celery is None:
        return Row(what, "–", shown(fleet), None, mark)
    better, worse = (celery, fleet) if less_is_better else (fleet, celery)
    return Row(what, shown(celery), shown(fleet), better["median"] / worse["median"], mark)


def throughput() -> Iterator[Row]:
    """Rate, processor time, memory and latency of a task that does nothing."""
    document = load("worker_throughput")
    rows = {(row["broker"], row["worker"]): row for row in document["rows"]}
    columns = {
        "tasksPerSecond": ("tasks/s", False),
        "cpuMicrosecondsPerTask": ("processor µs/task", True),
        "idlePssMiB": ("PSS MiB", True),
        "latencyMedianMilliseconds": ("latency ms", True),
    }
    for key, (unit, less_is_better) in columns.items():
        for (broker, worker), row in rows.items():
            whose, _, rest = worker.rpartition(f" {row['pool']}")
            if whose != "celery":
                beside = rows.get((broker, f"celery {row['pool']}{rest}"))
                what = f"{broker} {worker}, {unit}"
                celery = beside[key] if beside else None
                yield against(what, celery, row[key], mark=mark_of(document), less_is_better=less_is_better)


def other_loads() -> Iterator[Row]:
    """Tasks that wait, and bodies of some size; where Celery has no such pool, beside its best."""
    document = load("loads")
    for row in document["rows"]:
        if row["worker"].startswith("celery"):
            continue
        theirs = [one for one in document["rows"] if one["load"] == row["load"] and one["worker"].startswith("celery")]
        pool = row["worker"].rpartition(" ")[2]
        same = [one for one in theirs if one["worker"].endswith(f" {pool}")]
        best = max(same or theirs, key=lambda one: one["tasksPerSecond"]["median"], default=None)
        celery = best["tasksPerSecond"] if best else None
        what = f"{row['load']}, {row['worker']}, tasks/s"
        yield against(what, celery, row["tasksPerSecond"], mark=mark_of(document))


def idle() -> Iterator[Row]:
    """What workers cost that have nothing to do."""
    document = load("idle")
    rows = {row["worker"]: row for row in document["rows"]}
    for name, row in rows.items():
        if name.startswith("fleet"):
            celery = rows.get("celery, tuned")
            for key, unit in (("percentOfACore", "% of a core"), ("connectionsPerWorker", "connections each")):
                what = f"{document['workers']} idle solos, {name}, {unit}"
                beside = celery[key] if celery else None
                yield against(what, beside, row[key], mark=mark_of(document), less_is_better=True)


def scale() -> Iterator[Row]:
    """Verbs on fleets of several sizes."""
    document = load("fleet_scale")
    for size, row in (document["rows"] or {}).items():
        for verb, figure in row.items():
            unit = "MiB" if verb == "pssMiB" else "s"
            yield against(f"{size} solos, {verb}, {unit}", None, figure, mark=mark_of(document))


def main() -> None:
    """Print it."""
    rows = [*throughput(), *other_loads(), *idle(), *scale()]
    print("| | Celery | fleet | times | |\n|---|---|---|---|---|")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        print(f"| {row.what} | {row.celery} | {row.fleet} | {ratio} | {row.mark} |")


if __name__ == "__main__":
    main()
