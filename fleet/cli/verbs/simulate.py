"""simulate: a manifest's balance under a load, computed; runs nothing."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fleet.cli.output import Cell, Output, painted, table
from fleet.cli.progress import portion
from fleet.cli.target import duration, manifest_of, no_names, output_flag, target_flags, target_of
from fleet.core.text.format import counted
from fleet.core.text.format import duration as told
from fleet.errors import UsageError

if TYPE_CHECKING:
    from fleet.core.simulation.engine import GroupOutcome, Outcome
    from fleet.core.simulation.scenario import Scenario, Traffic
    from fleet.inputs.manifest import LoadedManifest

HOUR_SECONDS = 3600.0
SHORTEST_SECONDS = 10.0
LONGEST_SECONDS = 7 * 86_400.0
WORKLOADS = ("steady", "diurnal", "spike", "starvation", "mixed")
POLICIES = (
    *("fleet", "static", "equal", "hindsight"),
    *("celery", "celery-shared", "keda", "keda-backlog", "keda-tuned", "knative"),
)
HEAD = ("GROUP", "POOL", "TASKS", "P50", "P99", "TARGET", "LATE", "SLOTS", "MOST", "MOVES")
_MANY_LATE = 0.05


def simulate_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--workload", choices=WORKLOADS, help="the kind of load, made from the manifest (default: diurnal)"
    )
    load.add_argument("--arrivals", metavar="FILE.csv", help="the load, as lines of time,queue[,runtime] in seconds")
    parser.add_argument(
        "--duration", type=duration, metavar="TIME", help="simulated time, such as 30m (default: 1h, or the whole file)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="a different number draws different tasks of the same kind (default 1)"
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        help="what moves the slots of groups that autoscale (default: fleet; static where balance.mode is not dynamic)",
    )
    parser.add_argument("--picture", metavar="FILE", help="draw slots and waits over time, as .png or .svg")
    output_flag(parser)


def simulate(args: argparse.Namespace, out: Output) -> int:
    """Simulate the load on the manifest, and print how long every group's tasks waited."""
    from fleet.core.simulation.scenario import run_scenario

    target = target_of(args)
    no_names(target)
    _check_duration(args.duration)
    if args.picture:
        from fleet.cli import plot

        plot.check(args.picture)
    loaded = manifest_of(target)
    scenario = _scenario(loaded)
    traffic = _traffic(args, scenario)
    policy = args.policy or ("fleet" if loaded.manifest.spec.balance.mode == "dynamic" else "static")
    with portion(out, f"{told(traffic.duration_seconds)} of {loaded.name}", traffic.duration_seconds) as tell:
        outcome = run_scenario(scenario, traffic, policy, watch=bool(args.picture), on_progress=tell)
    what = args.arrivals or args.workload or WORKLOADS[1]
    head = {"fleet": loaded.name, "policy": policy, "workload": what, "seed": args.seed}
    document = {**head, **_document(scenario, traffic, outcome)}
    out.either(document, _text(head, scenario, traffic, outcome, colour=out.colour))
    for note in scenario.notes if not out.is_json else ():
        out.say(f"note: {note}")
    if args.picture:
        targets = {one.name: one.group.target_wait_seconds for one in scenario.stations}
        plot.draw(outcome, args.picture, title=_title(head, traffic), budget=scenario.budget, targets=targets)
        out.say(f"drew {args.picture}")
    return 0


def _check_duration(seconds: float | None) -> None:
    if seconds is not None and not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise UsageError(f"--duration {told(seconds)} is out of range", hint="from 10s to 7d")


def _scenario(loaded: LoadedManifest) -> Scenario:
    """Without secrets, apps or anything that runs: the default stands for what is unknown."""
    from fleet.core.expand.facts import Facts
    from fleet.core.simulation.scenario import scenario
    from fleet.inputs.machine import cpus

    found = scenario(loaded.manifest, facts=Facts(cpus=cpus(), embedded_url="redis+socket:///"))
    if not found.stations:
        raise UsageError(f"fleet {loaded.name!r} has no group with slots", hint="there is nothing to simulate")
    return found


def _traffic(args: argparse.Namespace, scenario: Scenario) -> Traffic:
    """The load: drawn from the seed, or read from the file."""
    from fleet.core.simulation.scenario import recorded_traffic, workload_traffic

    def chance(name: str) -> random.Random:
        return random.Random(f"{args.seed}/{name}")

    if args.arrivals is None:
        seconds = args.duration or HOUR_SECONDS
        return workload_traffic(scenario, args.workload or WORKLOADS[1], duration_seconds=seconds, chance=chance)
    from fleet.core.simulation.workloads import read_arrivals
    from fleet.state.files import read_named

    try:
        text = read_named(args.arrivals).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{args.arrivals} is not UTF-8 text") from error
    lines = read_arrivals(text, source=args.arrivals)
    return recorded_traffic(scenario, lines, source=args.arrivals, duration_seconds=args.duration, chance=chance)


def _document(scenario: Scenario, traffic: Traffic, outcome: Outcome) -> dict[str, Any]:
    return {
        "duration": traffic.duration_seconds,
        "budget": scenario.budget,
        "totals": {
            "tasks": outcome.tasks,
            "p50": round(outcome.p50_seconds, 3),
            "p99": round(outcome.p99_seconds, 3),
            "late": round(outcome.late, 5),
            "slotHours": round(outcome.slot_hours, 3),
            "mostSlots": outcome.slots_most,
            "moves": outcome.moves,
            "startSeconds": round(outcome.start_seconds, 1),
        },
        "groups": {name: _group_document(scenario, name, found) for name, found in outcome.groups.items()},
        "notes": list(scenario.notes),
    }


def _group_document(scenario: Scenario, name: str, found: GroupOutcome) -> dict[str, Any]:
    station = next(one for one in scenario.stations if one.name == name)
    return {
        "pool": station.pool,
        "tasks": found.tasks,
        "p50": round(found.p50_seconds, 3),
        "p99": round(found.p99_seconds, 3),
        "targetWait": station.group.target_wait_seconds,
        "late": round(found.late, 5),
        "timeOver": round(found.over, 5),
        "unserved": found.unserved,
        "slots": {"mean": round(found.slots_mean, 2), "most": found.slots_most},
        "busy": round(found.busy_mean, 2),
        "moves": found.moves,
    }


def _title(head: dict[str, Any], traffic: Traffic) -> str:
    return f"{head['fleet']}, {head['workload']} for {told(traffic.duration_seconds)}, policy {head['policy']}"


def _text(head: dict[str, Any], scenario: Scenario, traffic: Traffic, outcome: Outcome, *, colour: bool) -> str:
    rows = [_row(scenario, one.name, one.pool, outcome.groups[one.name]) for one in scenario.stations]
    lines = [painted(_title(head, traffic), "bold", colour=colour), "", table(HEAD, rows, colour=colour), ""]
    lines.append(
        f"{counted(outcome.tasks, 'task')}: waits p50 {_seconds(outcome.p50_seconds)}, p99"
        f" {_seconds(outcome.p99_seconds)}, {_percent(outcome.late)} late"
    )
    lines.append(
        f"slots: {outcome.slot_hours:.1f} slot-hours, never more than {outcome.slots_most} of {scenario.budget};"
        f" {counted(outcome.moves, 'move')}, {outcome.start_seconds:.0f} s of starting"
    )
    return "\n".join(lines)


def _row(scenario: Scenario, name: str, pool: str, found: GroupOutcome) -> Sequence[Cell]:
    target = next(one.group.target_wait_seconds for one in scenario.stations if one.name == name)
    style = "good" if found.late <= _MANY_LATE else "bad"
    return (
        Cell(name),
        Cell(pool),
        Cell(str(found.tasks), right=True),
        Cell(_seconds(found.p50_seconds), right=True),
        Cell(_seconds(found.p99_seconds), right=True),
        Cell(told(target), right=True),
        Cell(_percent(found.late), style, right=True),
        Cell(f"{found.slots_mean:.1f}", right=True),
        Cell(str(found.slots_most), right=True),
        Cell(str(found.moves), right=True),
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 1000 else f"{seconds:.0f}s"


def _percent(part: float) -> str:
    return f"{100 * part:.1f}%"
