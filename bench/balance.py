"""What policies do to waits: five loads over one fleet, simulated with the controller's own decision code.

The fleet is bench/balance.yaml: 64 slots, five groups, pools that move in different ways. Every policy sees the same
tasks. An hour per run, of which the first two minutes do not count. Then the static balance's own time.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import figures
import matplotlib

from fleet.core.balance.costs import Prices
from fleet.core.balance.divide import balance
from fleet.core.balance.shares import Share
from fleet.core.expand.facts import Facts
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.simulation.engine import Outcome
from fleet.core.simulation.policies import POLICIES
from fleet.core.simulation.scenario import Scenario, Traffic, run_scenario, scenario, workload_traffic
from fleet.core.simulation.workloads import WORKLOADS, BaseLoad

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HOUR = 3600.0
SEEDS = (11, 12, 13)
"""Nothing was tuned on these."""

NOISY = "etl"
ORDER = ("thumbs", "etl", "mail", "reports", "export")
"""As in the load's definition: which group bursts, peaks or floods when goes by place."""

RATES = {"thumbs": (8.0, 0.5), "etl": (2.5, 1.0), "mail": (20.0, 1.0), "reports": (3.0, 0.7), "export": (0.3, 1.0)}
"""Tasks a second at 62 % load, and how much a task's time varies."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in POLICIES if name != "fleet"},
    "fleet": ("fleet", {}),
    "fleet, tick 1s": ("fleet", {"tick_seconds": 1.0}),
    "fleet, tick 15s": ("fleet", {"tick_seconds": 15.0}),
    "fleet, surplus kept": ("fleet", {"surplus": "keep"}),
    "fleet, no squeeze": ("fleet", {"squeeze_seconds": 0.0}),
    "fleet, loans within 15s": ("fleet", {"loan_within_seconds": 15.0}),
}

FLEET, OTHER = "#1f6f8b", "#b5b5b5"


def the_scenario() -> Scenario:
    """The fleet of the measurement, with loads as they are written above."""
    path = Path(__file__).with_name("balance.yaml")
    manifest = parse([Source(path.name, path.read_text())], environ={}).manifest
    found = scenario(manifest, facts=Facts(cpus=4))
    by_name = {one.name: one for one in found.base_loads}
    base_loads = [_base_load(by_name[name]) for name in ORDER]
    return replace(found, base_loads=tuple(base_loads))


def _base_load(one: BaseLoad) -> BaseLoad:
    rate, variation = RATES[one.name]
    return replace(one, rate=rate, variation=variation)


def traffic_of(scenario: Scenario, workload: str, seeds: Sequence[int], seconds: float) -> Iterator[Traffic]:
    """One play per seed."""
    for seed in seeds:

        def chance(name: str, seed: int = seed) -> random.Random:
            return random.Random(f"{seed}/{name}")

        yield workload_traffic(scenario, workload, duration_seconds=seconds, chance=chance)


def row(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means over the seeds; late parts in percent. ``others``: all groups but the noisy one."""

    def mean(value: Callable[[Outcome], float]) -> float:
        return round(statistics.fmean(map(value, outcomes)), 3)

    return {
        "tasks": mean(lambda one: one.tasks),
        "p50": mean(lambda one: one.p50_seconds),
        "p99": mean(lambda one: one.p99_seconds),
        "latePercent": mean(lambda one: 100 * one.late),
        "worstOverPercent": mean(lambda one: 100 * one.worst_over),
        "othersLatePercent": mean(_others_late),
        "othersWorstOverPercent": mean(
            lambda one: 100 * max(group.over for name, group in one.groups.items() if name != NOISY)
        ),
        "unserved": mean(lambda one: sum(group.unserved for group in one.groups.values())),
        "slotHours": mean(lambda one: one.slot_hours),
        "moves": mean(lambda one: one.moves),
        "startSeconds": mean(lambda one: one.start_seconds),
        "mostSlots": max(one.slots_most for one in outcomes),
    }


def _others_late(one: Outcome) -> float:
    groups = [group for name, group in one.groups.items() if name != NOISY]
    return 100 * sum(group.late * group.tasks for group in groups) / sum(group.tasks for group in groups)


def measure(scenario: Scenario, workload: str, seeds: Sequence[int], seconds: float) -> dict[str, Any]:
    """Every variant under one load."""
    coming = list(traffic_of(scenario, workload, seeds, seconds))
    rows = {}
    for name, (policy, changed) in VARIANTS.items():
        groups = scenario.scaled_groups
        variant = replace(scenario, scaled_groups=replace(groups, parameters=replace(groups.parameters, **changed)))
        rows[name] = row([run_scenario(variant, traffic, policy) for traffic in coming])
        late, p99, moves = (rows[name][key] for key in ("latePercent", "p99", "moves"))
        print(f"{workload:11} {name:24} late {late:6.2f} %  p99 {p99:7.1f} s  moves {moves:6.0f}", flush=True)
    return rows


def static_milliseconds(runs: int) -> dict[str, Any]:
    """Processor time of the static balance alone, also where another resource ends some groups or all."""
    found = {}
    for groups, slots in ((10, 1_000), (100, 10_000), (1_000, 100_000), (1_000, 1_000_000)):
        for label, capacity in (
            ("", {}),
            (", memory that suffices", {"memory": 10**12}),
            (", memory that ends most", {"memory": 3 * slots}),
        ):
            shares = _many(groups, slots)
            spent = [_timed(lambda s=shares, c=capacity, n=slots: balance(n, s, capacity=c)) for _ in range(runs)]
            found[f"{groups} groups, {slots} slots{label}"] = figures.spread(spent, digits=2)
    return found


def _many(groups: int, slots: int) -> list[Share]:
    chance = random.Random(1)
    prices = Prices({"memory": 5}, {"memory": 3})
    most = 4 * slots // groups
    return [
        Share(
            f"g{number:05d}",
            chance.randint(1, 100),
            chance.randint(0, 3),
            None if chance.random() < 0.5 else chance.randint(3, most),
            slots_per_replica=10,
            prices=prices,
        )
        for number in range(groups)
    ]


def _timed(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return 1000 * (time.process_time() - began)


def picture(tables: dict[str, Any]) -> Path:
    """Late tasks per policy, a panel per load."""
    figure, axes = plt.subplots(1, len(tables), figsize=(16, 5), layout="constrained", sharey=True)
    for place, (workload, rows) in zip(axes, tables.items(), strict=True):
        key = "othersLatePercent" if workload == "starvation" else "latePercent"
        _bars(place, {name: figure_of[key] for name, figure_of in rows.items()})
        of = f", all but {NOISY}" if workload == "starvation" else ""
        place.set_title(f"{workload}: % late{of}", fontsize=9, loc="left")
    path = figures.RESULTS / "balance.png"
    figure.savefig(path, dpi=110)
    return path


def _bars(axes: Axes, late: dict[str, float]) -> None:
    names = list(late)
    axes.barh(names, [late[name] for name in names], color=[FLEET if "fleet" in name else OTHER for name in names])
    for place, name in enumerate(names):
        axes.text(late[name], place, f" {late[name]:.2f}", va="center", fontsize=7)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """All loads, all variants."""
    given = figures.arguments(__doc__, runs=3)
    seeds, seconds = (SEEDS[:1], HOUR / 6) if given.quick else (SEEDS[: max(1, given.runs)], HOUR)
    scenario = the_scenario()
    tables = {workload: measure(scenario, workload, seeds, seconds) for workload in WORKLOADS}
    static = static_milliseconds(max(1, given.runs))
    for name, spent in static.items():
        print(f"{name}: {spent['median']} ms")
    document = {"seeds": list(seeds), "seconds": seconds, "budget": scenario.budget, "rows": tables, "staticMs": static}
    print(figures.write("balance", document))
    print(picture(tables))


if __name__ == "__main__":
    main()
