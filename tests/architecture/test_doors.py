"""Which module alone speaks to which foreign system, and what has no effects at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.imports import Import, all_imports, modules, tree_of, within


def refuse(breaches: list[Import], rule: str) -> None:
    assert not breaches, f"{rule}:\n  " + "\n  ".join(map(str, breaches))


DOORS = {
    "xmlrpc": ("fleet.backends.supervisor.rpc",),
    "kombu": ("fleet.broker", "fleet.worker"),
    "redis": ("fleet.broker", "fleet.worker"),
    "amqp": ("fleet.broker", "fleet.worker"),
    "celery": ("fleet.worker", "fleet.inputs.facts"),
    "billiard": ("pools.prefork", "fleet.worker.apps"),
    "gevent": ("pools.gevent", "fleet.launch", "fleet.worker.__main__"),
    "eventlet": ("pools.eventlet", "fleet.launch", "fleet.worker.__main__"),
    "kubernetes": ("fleet.backends.kubernetes.client",),
    "websocket": ("fleet.backends.kubernetes.client",),
    "urllib3": ("fleet.backends.kubernetes.client",),
    "rich": ("fleet.cli",),
    "matplotlib": ("fleet.cli.plot",),
    "pydantic": ("fleet.core.manifest", "fleet.operate.sync", "fleet.environment"),
    "pydantic_settings": ("fleet.environment",),
    "opentelemetry": ("fleet.tracing", "fleet.worker.tracing", "fleet.operate.metrics.otlp"),
    "smtplib": ("fleet.operate.notify.smtp",),
    "starlette": ("fleet.operate.dashboard.app",),
    "uvicorn": ("fleet.operate.dashboard.serving",),
    "psutil": ("pools.prefork", "fleet.replica", "fleet.backends.supervisor", "fleet.worker"),
}


@pytest.mark.parametrize("system", DOORS)
def test_a_foreign_system_has_its_door(system: str) -> None:
    doors = DOORS[system]
    refuse(
        [one for one in all_imports() if within(one.target, system) and not within(one.module, *doors)], f"{doors} only"
    )


IMPURE = (
    *("os", "time", "random", "socket", "subprocess", "threading", "multiprocessing", "tempfile", "shutil"),
    *("datetime", "uuid", "secrets", "io", "signal", "logging", "urllib.request"),
)
KUBERNETES_VALUES = "keda kinds names object_plan objects pod_status rollout_state yaml_text"
SYNC_VALUES = "semver refs remote pacing conditions tree_rules reports"
PURE = (
    *("fleet.core", "fleet.backends.supervisor.config", "pools.traits"),
    *(f"fleet.backends.kubernetes.{name}" for name in KUBERNETES_VALUES.split()),
    "fleet.operate.service.unit",
    *(f"fleet.operate.notify.{name}" for name in ("news", "spool")),
    *(f"fleet.operate.sync.{name}" for name in SYNC_VALUES.split()),
)


def test_the_pure_part_has_no_clock_no_chance_and_no_world() -> None:
    refuse([one for one in all_imports() if within(one.module, *PURE) and within(one.target, *IMPURE)], "not pure")


EFFECTS = {"open", "print", "input", "exec", "eval", "__import__"}
FILE_EFFECTS = {
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "mkdir",
    "unlink",
    "rename",
    "resolve",
    "iterdir",
    "exists",
    "is_file",
    "is_dir",
    "stat",
    "touch",
    "rmdir",
    "glob",
    "rglob",
    "home",
    "cwd",
    "chmod",
}


def test_the_pure_part_opens_and_prints_nothing() -> None:
    found = [
        f"{module}:{node.lineno} {effect}()"
        for module in modules()
        if within(module, *PURE)
        for node in calls(tree_of(module))
        if (effect := effect_of(node))
    ]

    assert found == []


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Every call but those of ``if __name__ == "__main__"``, which run when the module is a program."""
    for part in tree.body:
        if not (isinstance(part, ast.If) and "__main__" in ast.dump(part.test)):
            yield from (node for node in ast.walk(part) if isinstance(node, ast.Call))


def effect_of(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name) and node.func.id in EFFECTS:
        return node.func.id
    if isinstance(node.func, ast.Attribute) and node.func.attr in FILE_EFFECTS:
        return node.func.attr
    return ""
