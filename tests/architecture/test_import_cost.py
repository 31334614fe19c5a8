"""What importing a module brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.imports import ROOT, modules

HEAVY = {
    *("gevent", "eventlet", "kombu", "billiard", "celery", "redis", "pydantic", "yaml", "ruamel", "rich"),
    *("supervisor", "matplotlib", "opentelemetry"),
}


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["pools", "pools.traits", "fleet", "fleet.errors", "fleet.launch", "fleet.cli"])
def test_importing_is_cheap(module: str) -> None:
    assert module in modules()
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_what_celerys_worker_loads_of_fleet_brings_nothing_heavy_along() -> None:
    celery = loaded_by("import celery.worker.state, celery.bootsteps, celery.signals, celery.exceptions")
    brought = loaded_by("import fleet.worker.celery_member.steps") - celery

    assert brought & HEAVY == set()
    assert "pools" not in brought


@pytest.mark.parametrize(
    "module",
    [
        *("fleet.core.planning.planner", "fleet.core.planning.rollout", "fleet.core.planning.budget"),
        *("fleet.core.status", "fleet.core.autoscale.decide"),
    ],
)
def test_deciding_needs_neither_pydantic_nor_a_broker(module: str) -> None:
    assert module in modules()
    assert loaded_by(f"import {module}") & HEAVY == set()


@pytest.mark.parametrize(
    "modules",
    [
        "fleet.cli.verbs.status, fleet.operate.local_fleet, fleet.backends.supervisor.backend",
        "fleet.cli.verbs.plan, fleet.cli.verbs.render, fleet.inputs.manifest, fleet.backends.kubernetes.objects",
    ],
)
def test_no_pattern_is_compiled_before_there_is_text_for_it(modules: str) -> None:
    script = f"""
import re, sys
import fleet.cli.output, fleet.cli.parser
compiled, real = [], re.compile
def compile(pattern, flags=0):
    compiled.append(sys._getframe(1).f_globals["__name__"])
    return real(pattern, flags)
re.compile = compile
import {modules}
assert compiled, "other packages do"
print(*(name for name in compiled if name.partition(".")[0] in ("fleet", "pools")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("verb", ["status", "top", "logs", "history", "events", "health"])
def test_looking_at_a_fleet_needs_no_pydantic(verb: str) -> None:
    statement = f"import fleet.settings, fleet.operate.local_fleet, fleet.state.overrides, fleet.cli.verbs.{verb}"
    assert loaded_by(statement) & (HEAVY - {"yaml"}) == set()
