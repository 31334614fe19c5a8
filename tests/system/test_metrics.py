"""A fleet that serves metrics, scraped by a real Prometheus: queries, every panel of the dashboard, every alert."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.prometheus import PrometheusServer
from tests.servers import free_port
from tests.system.worlds import World

pytestmark = pytest.mark.system

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
RULES = MONITORING / "alerts.yaml"
VARIABLES = {"$fleet": ".*", "$group": ".*", "$__rate_interval": "1m"}


@pytest.fixture
def prometheus(world: World) -> Iterator[PrometheusServer]:
    """Scrapes a fleet of two groups, one of which autoscales."""
    target = f"127.0.0.1:{free_port()}"
    more = f'  concurrency: 4\n  metrics: {{listen: "{target}"}}\n'
    world.write(
        "    quick: {pool: {type: threads, concurrency: 2}, replicas: 1, queues: [quick]}\n"
        "    moved: {pool: solo, autoscale: {min: 1, max: 2}, queues: [moved]}\n",
        more=more,
    )
    world.apply()
    server = PrometheusServer(target, rules=RULES).start()
    yield server
    server.remove()


def expression(text: str) -> str:
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text


def queries() -> list[str]:
    return [expression(target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def value(prometheus: PrometheusServer, query: str) -> float:
    found = prometheus.query(query)
    assert len(found) == 1, f"{query}: {found}"
    return float(found[0]["value"][1])


def test_prometheus_scrapes_a_fleet_and_every_panel_and_alert_can_be_answered(
    world: World, prometheus: PrometheusServer
) -> None:
    tasks = [[str(world.done_file), number, 0.01] for number in range(20)]
    eventually(lambda: value(prometheus, 'sum(fleet_group_replicas_ready{group=~"quick|moved"})') == 3)
    world.send("work", "quick", *tasks[:15])
    world.send("work", "moved", *tasks[15:])

    # what is asked is what was done
    done = 'fleet_tasks_total{task="world_tasks.work", outcome="done"}'
    eventually(lambda: value(prometheus, f"sum({done})") == 20)
    eventually(lambda: value(prometheus, f'sum({done[:-1]}, group="quick"}})') == 15)
    assert value(prometheus, 'sum(fleet_task_run_seconds_count{task="world_tasks.work"})') == 20
    assert value(prometheus, 'sum(fleet_task_wait_seconds_bucket{le="+Inf"})') == 20
    assert value(prometheus, "fleet_up") == value(prometheus, "fleet_ready") == 1
    assert value(prometheus, "fleet_revision") == 1

    # counts of a group outlive the processes that counted
    world.fleet("restart", str(world.manifest), "quick", "--yes")
    eventually(lambda: value(prometheus, 'fleet_replica_starts_total{group="quick"}') == 2)
    eventually(lambda: value(prometheus, 'sum(fleet_replica_tasks_ended_total{group="quick"})') == 0)
    assert value(prometheus, f"sum({done})") == 20

    # every panel shows something, while tasks go on coming
    def answered() -> bool:
        world.send("work", "quick", *tasks[:3])
        silent = [query for query in queries() if not prometheus.query(query)]
        assert not silent
        return True

    eventually(answered)

    # every alert can be evaluated, and none of them fires over a fleet that is well
    def evaluated() -> list[dict[str, Any]]:
        rules = prometheus.rules()
        assert all(rule["health"] == "ok" for rule in rules), rules
        return rules

    rules = eventually(evaluated)
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []

    world.fleet("metrics", str(world.manifest), "--textfile", str(world.root))
    text = (world.root / "fleet-world.prom").read_bytes()
    subprocess.run(["promtool", "check", "metrics"], input=text, check=True, capture_output=True)


def test_promtool_accepts_the_alerts() -> None:
    found = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
