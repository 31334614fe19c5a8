"""One picture of the last results: bench/results/bench.png."""

from __future__ import annotations

import json
from typing import Any

import figures
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

FLEET, OTHER = "#1f6f8b", "#b5b5b5"


def load(name: str) -> dict[str, Any]:
    """A result file."""
    document: dict[str, Any] = json.loads((figures.RESULTS / f"{name}.json").read_text())
    return document


def bars(
    axes: Axes, title: str, rows: list[tuple[str, dict[str, float]]], *, factor: float = 1.0, digits: int = 0
) -> None:
    """Medians as bars, smallest to largest as whiskers; fleet's own rows in colour."""
    labels = [label for label, _ in rows]
    medians = [row["median"] * factor for _, row in rows]
    low = [(row["median"] - row["min"]) * factor for _, row in rows]
    high = [(row["max"] - row["median"]) * factor for _, row in rows]
    colours = [FLEET if label.startswith("fleet") else OTHER for label in labels]
    axes.barh(labels, medians, xerr=[low, high], color=colours, ecolor="#444444", capsize=2)
    for place, value in enumerate(medians):
        axes.text(value, place, f" {value:.{digits}f}", va="bottom", ha="left", fontsize=7)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)


def main() -> None:
    """Draw six panels."""
    work = load("worker_throughput")["rows"]
    start = load("cli_start")["rows"]
    scale = load("fleet_scale")["rows"]
    figure, axes = plt.subplots(3, 2, figsize=(12, 10), layout="constrained")
    for column, broker in enumerate(("redis", "rabbitmq")):
        mine = [row for row in work if row["broker"] == broker]
        bars(axes[0][column], f"no-op tasks per second, {broker}", [(r["worker"], r["tasksPerSecond"]) for r in mine])
        cost = [(r["worker"], r["cpuMicrosecondsPerTask"]) for r in mine]
        bars(axes[1][column], f"processor time per task, µs, {broker}", cost)
    bars(axes[2][0], "command lines, ms", [(name, row["wall"]) for name, row in start.items()], factor=1000)
    verbs = [(f"fleet {verb}, {size}", row[verb]) for size, row in scale.items() for verb in row if verb != "pssMiB"]
    bars(axes[2][1], "seconds per verb, by number of solo replicas", verbs, digits=2)
    path = figures.RESULTS / "bench.png"
    figure.savefig(path, dpi=120)
    print(path)


if __name__ == "__main__":
    main()
