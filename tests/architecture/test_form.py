"""What every module has in common: a first line that says what it is for, a name that says something, a size."""

from __future__ import annotations

import ast

from tests.architecture.imports import modules, tree_of


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name in modules() if not ast.get_docstring(tree_of(name))] == []


def test_no_module_is_called_after_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils"}

    assert [name for name in modules() if empty & set(name.split("."))] == []


LARGEST_CLASS_LINES = 260


def test_no_class_tells_more_than_one_story() -> None:
    large = [
        f"{name}: {node.name}, {node.end_lineno - node.lineno + 1} lines"
        for name in modules()
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.ClassDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LARGEST_CLASS_LINES
    ]

    assert large == []
