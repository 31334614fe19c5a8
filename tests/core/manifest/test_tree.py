"""Copies of a node that has all its marks."""

from __future__ import annotations

from dataclasses import fields, replace

from fleet.core.manifest.tree import Node, Position

PLACE = Position("a.yaml", 3, 5)
MARKED = {one.name: True for one in fields(Node) if one.type == "bool"}


def test_a_copy_differs_in_what_it_is_told_and_in_nothing_else() -> None:
    key_at = Position("a.yaml", 2, 1)
    for name in (*MARKED, ""):
        node = Node("x", PLACE, key_at, (7, 9), 4, first_key=6, **{name: True} if name else {})
        assert node.with_value({"k": node}) == replace(node, value={"k": node})
        assert node.under(PLACE, 11) == replace(node, key_at=PLACE, key_start=11)
    assert len(MARKED) == 7
