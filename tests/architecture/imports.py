"""The imports of the project, read from its source: who imports whom, which names, and when."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fleet", "pools")


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one module.

    names: what is taken out of it, empty where the module itself is imported.  at_import: whether the statement runs
    when the importing module is loaded, and not later in a function.  for_types: whether only a type checker sees it.
    """

    module: str
    target: str
    names: tuple[str, ...]
    line: int
    at_import: bool
    for_types: bool = False

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the two packages by its dotted name; a package by the name of its folder."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def folders() -> tuple[str, ...]:
    """Every package of the project, as dotted names."""
    return tuple(name for name, path in modules().items() if path.name == "__init__.py")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(found for module in modules() for found in imports_of(module))


def running_imports() -> tuple[Import, ...]:
    """Without those that only a type checker sees."""
    return tuple(one for one in all_imports() if not one.for_types)


def imports_of(module: str) -> Iterator[Import]:
    tree = tree_of(module)
    typing_only = {id(node) for block in type_checking_blocks(tree) for node in ast.walk(block)}
    top = {id(node) for node in run_at_import(tree)}
    for node in ast.walk(tree):
        at_import, for_types = id(node) in top, id(node) in typing_only
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, (), node.lineno, at_import, for_types)
        elif isinstance(node, ast.ImportFrom):
            for target, names in targets(module, node):
                yield Import(module, target, names, node.lineno, at_import, for_types)


def targets(module: str, node: ast.ImportFrom) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The modules that a ``from … import …`` names: a module of the project itself, else the module of the name."""
    base = absolute(module, node)
    names = [alias.name for alias in node.names]
    yield from ((f"{base}.{name}", ()) for name in names if f"{base}.{name}" in modules())
    if plain := tuple(name for name in names if f"{base}.{name}" not in modules()):
        yield base, plain


def absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    keep = len(parts) - node.level + (module in folders())
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def type_checking_blocks(tree: ast.Module) -> Iterator[ast.If]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield node


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs when the module is loaded: not the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from run_at_import(child)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def home_of(target: str) -> str:
    """The module of the project that a dotted name belongs to, or nothing."""
    while target and target not in modules():
        target = target.rpartition(".")[0]
    return target


def module_arrows(imports: Iterable[Import]) -> dict[str, set[str]]:
    """Per module the modules of the project that it imports."""
    arrows: dict[str, set[str]] = {name: set() for name in modules()}
    for one in imports:
        if (home := home_of(one.target)) and home != one.module:
            arrows[one.module].add(home)
    return arrows


def circles(arrows: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """The groups of names that reach each other (Tarjan's strongly connected components of more than one), sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            start = stack.index(name)
            if len(stack) - start > 1:
                found.append(tuple(sorted(stack[start:])))
            del stack[start:]

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return sorted(found)
