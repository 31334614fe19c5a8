"""The last results side by side: what was measured, Celery's figure, fleet's, and how many times as good that is.

Reads ``results/`` and measures nothing. In brackets: the smallest and the largest run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import figures

Spread = dict[str, float]
OF_LOADS = {
    "tasksPerSecond": "tasks/s",
    "cpuMicrosecondsPerTask": "processor µs/task",
    "brokerMicrosecondsPerTask": "µs of Redis/task",
}
SHARES = {"shareOfRate": "share of the rate", "shareOfProcessorTime": "share of the processor time"}
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


def throughput(keys: Sequence[str]) -> Iterator[Row]:
    """Rate, processor time, memory or latency of a task that does nothing."""
    document = load("worker_throughput")
    rows = {(row["broker"], row["worker"]): row for row in document["rows"]}
    columns = {
        "tasksPerSecond": ("tasks/s", False),
        "cpuMicrosecondsPerTask": ("processor µs/task", True),
        "idlePssMiB": ("PSS MiB", True),
        "latencyMedianMilliseconds": ("latency ms", True),
    }
    for key in keys:
        unit, less_is_better = columns[key]
        for (broker, worker), row in rows.items():
            whose, _, rest = worker.rpartition(f" {row['pool']}")
            if whose != "celery":
                beside = rows.get((broker, f"celery {row['pool']}{rest}"))
                what = f"{broker} {worker}, {unit}"
                celery = beside[key] if beside else None
                yield against(what, celery, row[key], mark=mark_of(document), less_is_better=less_is_better)


def other_loads(part: str) -> Iterator[Row]:
    """Tasks that wait, or bodies of some size; where Celery has no such pool, beside its best. part: of their names."""
    document = load("loads")
    for row in document["rows"]:
        if row["worker"].startswith("celery") or part not in row["load"]:
            continue
        theirs = [one for one in document["rows"] if one["load"] == row["load"] and one["worker"].startswith("celery")]
        pool = row["worker"].rpartition(" ")[2]
        same = [one for one in theirs if one["worker"].endswith(f" {pool}")]
        best = max(same or theirs, key=lambda one: one["tasksPerSecond"]["median"], default=None)
        for key, unit in OF_LOADS.items():
            what = f"{row['load']}, {row['worker']}, {unit}"
            celery = best[key] if best else None
            yield against(what, celery, row[key], mark=mark_of(document), less_is_better=key != "tasksPerSecond")


def plain_share() -> Iterator[Row]:
    """Milliseconds of Python as a share of a plain loop."""
    document = load("plain_share")
    rows = {row["worker"]: row for row in document["rows"]}
    for worker, row in rows.items():
        for key, unit in SHARES.items():
            if worker.startswith("fleet"):
                pools = worker.partition(" two ")[1:] if " two " in worker else worker.partition(" prefork")[1:]
                celery = rows.get("celery" + "".join(pools))
                what = f"5 ms of Python, {worker}, {unit} of a plain loop"
                yield against(what, celery[key] if celery else None, row[key], mark=mark_of(document))


def queues() -> Iterator[Row]:
    """One queue with several workers, a hundred queues in one, and sending."""
    document = load("queues")
    rows = {(row["load"], row["worker"]): row for row in document["rows"]}
    for (what, worker), row in rows.items():
        if worker != "celery":
            celery = rows.get((what, "celery"))
            rate = celery["tasksPerSecond"] if celery else None
            yield against(f"{what}, {worker}, tasks/s", rate, row["tasksPerSecond"], mark=mark_of(document))


def soak() -> Iterator[Row]:
    """Memory of long runs: what was held in the end beside what was held at first."""
    document = load("soak")
    for row in document["rows"]:
        if row["worker"].startswith("fleet"):
            verdict = "grew" if row["grew"] else "steady"
            held = f"{row['firstMiB']:.4g} to {row['lastMiB']:.4g}, {verdict}"
            yield Row(f"{row['over']}, {row['worker']}, MiB", "–", held, None, mark_of(document))


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


def image() -> Iterator[Row]:
    """Memory of workers of an app that imports much."""
    document = load("image")
    rows = {row["worker"]: row for row in document["rows"]}
    for worker, row in rows.items():
        if worker.startswith("fleet"):
            celery = rows.get(f"celery {worker.split()[1].rstrip(',')}")
            for key, when in (("pssMiBAtRest", "at rest"), ("pssMiBAfterTasks", "after tasks")):
                what = f"{document['workers']} slots of an app with numpy, {worker}, {when}, PSS MiB"
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
    rows = [
        *throughput(("tasksPerSecond",)),
        *plain_share(),
        *other_loads("B"),
        *throughput(("cpuMicrosecondsPerTask", "idlePssMiB")),
        *image(),
        *scale(),
        *idle(),
        *throughput(("latencyMedianMilliseconds",)),
        *other_loads("100 ms"),
        *queues(),
        *soak(),
    ]
    print("| | Celery | fleet | times | |\n|---|---|---|---|---|")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        print(f"| {row.what} | {row.celery} | {row.fleet} | {ratio} | {row.mark} |")


if __name__ == "__main__":
    main()
