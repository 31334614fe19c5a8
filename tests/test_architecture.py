"""Who may import whom, what is pure, and which module alone speaks to which foreign system: read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fleet", "pools")


@dataclass(frozen=True)
class Import:
    """One import statement: who, whom, which names, and whether it runs when the module is imported."""

    module: str
    target: str
    names: tuple[str, ...]
    line: int
    at_import: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str, *, for_types_too: bool = False) -> Iterator[Import]:
    tree = ast.parse(MODULES[module].read_text())
    blocks = () if for_types_too else type_checking_blocks(tree)
    typing_only = {id(node) for block in blocks for node in ast.walk(block)}
    top = {id(node) for node in run_at_import(tree)}
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, (), node.lineno, id(node) in top)
        elif isinstance(node, ast.ImportFrom):
            yield from imports_from(module, node, at_import=id(node) in top)


def imports_from(module: str, node: ast.ImportFrom, *, at_import: bool) -> Iterator[Import]:
    base = absolute(module, node)
    names = tuple(alias.name for alias in node.names)
    plain = tuple(name for name in names if f"{base}.{name}" not in MODULES)
    for name in names:
        if f"{base}.{name}" in MODULES:
            yield Import(module, f"{base}.{name}", (), node.lineno, at_import)
    if plain:
        yield Import(module, base, plain, node.lineno, at_import)


def absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = MODULES[module].name == "__init__.py"
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def type_checking_blocks(tree: ast.Module) -> Iterator[ast.If]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield node


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs when the module is imported: not the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from run_at_import(child)


ALL = [found for module in MODULES for found in imports_of(module)]


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def refuse(breaches: list[Import], rule: str) -> None:
    assert not breaches, f"{rule}:\n  " + "\n  ".join(map(str, breaches))


# --- who may import whom --------------------------------------------------------------------------------------------


def test_pools_know_nothing_of_fleets() -> None:
    refuse([one for one in ALL if within(one.module, "pools") and within(one.target, "fleet")], "pools imports fleet")


def test_pools_have_no_import_circle() -> None:
    waiting = {name: set[str]() for name in MODULES if within(name, "pools")}
    for one in ALL:
        if one.module in waiting and one.target in waiting:
            waiting[one.module].add(one.target)

    while ready := {name for name, targets in waiting.items() if not targets & waiting.keys()}:
        for name in ready:
            del waiting[name]

    assert waiting == {}


def test_the_core_stands_on_errors_and_traits_alone() -> None:
    allowed = ("fleet.core", "fleet.errors", "fleet.settings", "pools.traits")
    breaches = [
        one
        for one in ALL
        if within(one.module, "fleet.core") and within(one.target, *PACKAGES) and not within(one.target, *allowed)
    ]
    refuse(breaches, "the core imports what lies above it")


def test_only_the_worker_runs_pools() -> None:
    breaches = [
        one
        for one in ALL
        if within(one.module, "fleet")
        and within(one.target, "pools")
        and not within(one.target, "pools.traits")
        and not within(one.module, "fleet.worker")
    ]
    refuse(breaches, "only fleet.worker imports pools")


OPERATE = tuple(name for name in MODULES if name.startswith(("fleet.apply", "fleet.controller", "fleet.doctor")))
OPERATE += ("fleet.change", "fleet.session")


def test_backends_do_not_know_each_other_nor_what_stands_above_them() -> None:
    kinds = {name.split(".")[2] for name in MODULES if name.startswith("fleet.backends.")} - {"base"}
    above = ("fleet.cli", "fleet.history", *OPERATE)
    breaches = []
    for one in ALL:
        if within(one.module, "fleet.backends"):
            own = one.module.split(".")[2] if one.module.count(".") > 1 else ""
            others = [f"fleet.backends.{kind}" for kind in kinds if kind != own]
            breaches += [one] if within(one.target, *others, *above) else []
    refuse(breaches, "a backend imports another, or what stands above it")


def test_the_worker_knows_nothing_of_backends_plans_or_verbs() -> None:
    above = ("fleet.backends", "fleet.cli", "fleet.history", *OPERATE)
    deciding = ("fleet.core.planner", "fleet.core.rollout", "fleet.core.plan", "fleet.core.expand", "fleet.core.parse")
    breaches = [one for one in ALL if within(one.module, "fleet.worker") and within(one.target, *above, *deciding)]
    refuse(breaches, "fleet.worker imports what stands above it")


def test_nobody_imports_the_command_line() -> None:
    inside = ("fleet.cli", "fleet.__main__")
    breaches = [one for one in ALL if within(one.target, "fleet.cli") and not within(one.module, *inside)]
    refuse(breaches, "fleet.cli is imported")


def test_no_module_reaches_into_the_private_names_of_another() -> None:
    breaches = [
        one
        for one in ALL
        if within(one.target, *PACKAGES)
        and (any(private(name) for name in one.names) or any(private(part) for part in one.target.split(".")))
    ]
    refuse(breaches, "a private name is imported")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_version"


STILL_IN_A_CIRCLE = {"fleet.worker.application", "fleet.worker.consumer", "pools.handle"}


def test_no_import_leads_back_to_where_it_began() -> None:
    """Neither one that runs at import, nor one that waits in a function, nor one for the type checker alone."""
    graph = {
        module: {one.target for one in imports_of(module, for_types_too=True)}
        for module in MODULES.keys() - STILL_IN_A_CIRCLE
    }

    assert circle_in(graph) == []


def test_a_circle_of_imports_is_found() -> None:
    assert circle_in({"a": {"b", "c"}, "b": {"json"}, "c": {"d"}, "d": {"b", "c"}}) in (
        ["c", "d", "c"],
        ["d", "c", "d"],
    )


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other, the first one again at the end; nothing where no import leads back."""
    left = {module: targets - {module} for module, targets in graph.items()}
    while leaves := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in leaves:
            del left[module]
    way = sorted(left)[:1]
    while way and way.count(way[-1]) == 1:
        way.append(min(left[way[-1]] & left.keys()))
    return way[way.index(way[-1]) :] if way else []


# --- one door per foreign system ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "doors"),
    [
        ("xmlrpc", ("fleet.backends.supervisor.rpc",)),
        ("kombu", ("fleet.broker", "fleet.worker")),
        ("redis", ("fleet.broker", "fleet.worker")),
        ("amqp", ("fleet.broker", "fleet.worker")),
        ("celery", ("fleet.worker",)),
        ("billiard", ("pools.prefork", "fleet.worker.celery_app")),
        ("gevent", ("pools.gevent", "fleet.launch", "fleet.worker.__main__")),
        ("eventlet", ("pools.eventlet", "fleet.launch", "fleet.worker.__main__")),
        ("kubernetes", ("fleet.backends.kubernetes.client",)),
        ("rich", ("fleet.cli",)),
        ("matplotlib", ("fleet.cli.plot",)),
    ],
)
def test_a_foreign_system_has_one_door(system: str, doors: tuple[str, ...]) -> None:
    refuse([one for one in ALL if within(one.target, system) and not within(one.module, *doors)], f"{doors} only")


PYDANTIC = {"manifest", "field_types", "shape", "sentences", "fields", "schema", "reference", "parse"}


def test_pydantic_stays_at_the_edges() -> None:
    allowed = ("fleet.settings", *(f"fleet.core.{name}" for name in PYDANTIC))
    refuse(
        [
            one
            for one in ALL
            if within(one.target, "pydantic", "pydantic_settings") and not within(one.module, *allowed)
        ],
        "pydantic is for the manifest's text and the settings",
    )


DECIDING = (
    "spec desired observed plan planner rollout waves assignment case reasons difference budget balance status"
    " plan_text selection shares floors balance_reasons prices samples queueing scaling pace need bid layers autoscale"
    " crew simulation policies workloads"
)


def test_what_decides_does_not_see_the_manifest() -> None:
    modules = tuple(f"fleet.core.{name}" for name in DECIDING.split())
    refuse(
        [one for one in ALL if one.module in modules and within(one.target, "fleet.core.manifest", "fleet.core.parse")],
        "decisions are made on desired and observed alone",
    )


# --- purity ---------------------------------------------------------------------------------------------------------

IMPURE = (
    "os",
    "time",
    "random",
    "socket",
    "subprocess",
    "threading",
    "multiprocessing",
    "tempfile",
    "shutil",
    "datetime",
    "uuid",
    "secrets",
    "io",
    "signal",
    "logging",
    "urllib.request",
)
PURE = ("fleet.core", "fleet.backends.supervisor.config", "fleet.backends.kubernetes.objects", "pools.traits")


def test_the_pure_part_has_no_clock_no_chance_and_no_world() -> None:
    refuse([one for one in ALL if within(one.module, *PURE) and within(one.target, *IMPURE)], "not pure")


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
}
FILE_EFFECTS |= {"exists", "is_file", "is_dir", "stat", "touch", "rmdir", "glob", "rglob", "home", "cwd", "chmod"}


def test_the_pure_part_opens_and_prints_nothing() -> None:
    found = [
        f"{module}:{node.lineno} {effect}()"
        for module, path in MODULES.items()
        if within(module, *PURE)
        for node in calls(ast.parse(path.read_text()))
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


# --- what importing costs -------------------------------------------------------------------------------------------

HEAVY = (
    "gevent",
    "eventlet",
    "kombu",
    "billiard",
    "celery",
    "redis",
    "pydantic",
    "yaml",
    "ruamel",
    "rich",
    "supervisor",
    "matplotlib",
)


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["pools", "pools.traits", "fleet", "fleet.errors", "fleet.launch", "fleet.cli"])
def test_importing_is_cheap(module: str) -> None:
    if module not in MODULES:
        pytest.fail(f"{module} is missing")

    assert loaded_by(f"import {module}") & set(HEAVY) == set()


@pytest.mark.parametrize(
    "module",
    ["fleet.core.planner", "fleet.core.rollout", "fleet.core.status", "fleet.core.budget", "fleet.core.autoscale"],
)
def test_deciding_needs_neither_pydantic_nor_a_broker(module: str) -> None:
    assert loaded_by(f"import {module}") & set(HEAVY) == set()


# --- form -----------------------------------------------------------------------------------------------------------


def test_every_module_says_what_it_is_for() -> None:
    silent = [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]

    assert silent == []


def test_no_module_is_called_after_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils"}

    assert [name for name in MODULES if empty & set(name.split("."))] == []
