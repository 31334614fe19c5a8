"""Merge keys and ``x-…`` blocks: what many files share fields by."""

from __future__ import annotations

import pytest

from fleet.core.manifest import yaml_reader
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Findings, Source, plain
from fleet.errors import ManifestError

HEAD = "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\n"
SHARED = HEAD + (
    "x-worker: &worker\n"
    "  replicas: 2\n"
    "  pool: solo\n"
    "  env: &env {A: a, B: b}\n"
    "spec:\n"
    "  app: shop:app\n"
    "  broker: embedded\n"
    "  groups:\n"
    "    mail: *worker\n"
    "    thumbs:\n"
    "      <<: *worker\n"
    "      replicas: 5\n"
    "      env: {<<: *env, B: other, A: null}\n"
)


def read(text: str) -> object:
    findings = Findings()
    tree = yaml_reader.load(Source("m", text), findings)
    assert findings.problems == []
    assert tree is not None
    return plain(tree)


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse([Source("m", text)], environ={})
    return [f"{one.line}:{one.column} {one.path} {one.message}" for one in caught.value.problems]


def test_a_groups_own_fields_win_and_null_removes_what_was_brought() -> None:
    groups = parse([Source("m", SHARED)], environ={}).manifest.spec.groups
    assert (groups["mail"].replicas, groups["thumbs"].replicas) == (2, 5)
    assert groups["thumbs"].pool == groups["mail"].pool
    assert (groups["mail"].env, groups["thumbs"].env) == ({"A": "a", "B": "b"}, {"B": "other"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: &a {x: 1}, b: {<<: *a, y: 2}}", {"x": 1, "y": 2}),
        ("{a: &a {x: 1}, b: {y: 2, x: 3, <<: *a}}", {"x": 3, "y": 2}),
        ("{a: &a {x: 1}, c: &c {x: 2, z: 2}, b: {<<: [*a, *c]}}", {"x": 1, "z": 2}),
        ("{a: &a {x: 1}, c: &c {<<: *a, z: 2}, b: {<<: *c}}", {"x": 1, "z": 2}),
        ("b: {<<: {x: 1}}", {"x": 1}),
        ("b: {<<: []}", {}),
        ("b: {'<<': 1}", {"<<": 1}),
    ],
)
def test_what_a_merge_key_brings(text: str, value: object) -> None:
    document = read(text)
    assert isinstance(document, dict)
    assert document["b"] == value


def test_a_mistake_in_what_is_shared_is_told_where_it_is_written() -> None:
    text = SHARED.replace("  pool: solo\n", "  pool: solid\n")
    assert {problem.split(" ", 1)[0] for problem in problems(text)} == {"6:3"}
    assert problems(SHARED.replace("  env: &env {A: a, B: b}", "  env: &env {A: 1, B: b}"))[0].startswith("7:14 ")


@pytest.mark.parametrize("value", ["3", "[a]", "[[a]]", "~", "text"])
def test_a_merge_key_takes_maps_only(value: str) -> None:
    text = SHARED.replace("<<: *worker", f"<<: {value}")
    assert any("a merge key (`<<`) takes maps" in problem and problem.startswith("14:") for problem in problems(text))


def test_two_merge_keys_in_one_map_are_refused() -> None:
    text = SHARED.replace("      <<: *worker\n", "      <<: *worker\n      <<: *worker\n")
    assert any("'<<' is here twice" in problem and problem.startswith("15:") for problem in problems(text))


def test_extension_blocks_stand_at_the_top_and_in_spec_only() -> None:
    parse([Source("m", SHARED.replace("spec:\n", "spec:\n  x-note: anything\n"))], environ={})
    in_group = SHARED.replace("  replicas: 5", "  replicas: 5\n      x-a: 1")
    assert any("unknown field" in problem for problem in problems(in_group))


@pytest.mark.parametrize("reference", ["<<: *m{}", "<<: [*m{}, *m{}, *m{}]", "a: {{<<: *m{}}}, b: {{<<: *m{}}}"])
def test_merge_keys_that_grow_meet_the_limit_of_values(reference: str) -> None:
    lines = ["m0: &m0 {" + ", ".join(f"k{number}: 1" for number in range(40)) + "}"]
    lines += [f"m{level}: &m{level} {{own{level}: 1, {reference.format(*[level - 1] * 3)}}}" for level in range(1, 60)]
    findings = Findings()
    tree = yaml_reader.load(Source("m", "\n".join(lines)), findings)
    if tree is None:
        assert [one.message for one in findings.problems] == ["more than 50,000 values, aliases written out"]
    else:
        assert reference == "<<: *m{}"  # grows by one field a level: no bomb
