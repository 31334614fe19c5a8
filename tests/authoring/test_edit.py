"""Replica counts change in the text people wrote, and nothing else does."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.authoring.edit import edit_replicas
from fleet.core.manifest.tree import Source
from fleet.errors import ManifestError, UsageError
from tests.core.texts import GOOD, fleet, read


def changed_lines(old: str, new: str) -> list[str]:
    diff = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return [line for line in diff if line[0] in "+-" and line[:3] not in ("+++", "---")]


def set_replicas(text: str, replicas: Mapping[str, int]) -> str:
    """The text of the only manifest file after the edit."""
    return edit_replicas([Source("manifest", text)], replicas).get("manifest", text)


def test_one_number_changes_and_comments_stay() -> None:
    text = GOOD.replace("      replicas: 10\n", "      replicas:   10   # ten: one per core\n")
    assert changed_lines(text, set_replicas(text, {"thumbs": 12})) == [
        "-      replicas:   10   # ten: one per core",
        "+      replicas:   12   # ten: one per core",
    ]


def test_several_groups_change_at_once() -> None:
    new = set_replicas(GOOD, {"thumbs": 12, "beat": 0, "reports": 1})
    assert len(changed_lines(GOOD, new)) == 4
    manifest = read(new).manifest
    assert [manifest.spec.groups[name].replicas for name in ("thumbs", "beat", "reports")] == [12, 0, 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a: {replicas: 10}", "a: {replicas: 3}"),
        ("a: {replicas: 10, pool: solo}", "a: {replicas: 3, pool: solo}"),
        ("a: {'replicas': 10}", "a: {'replicas': 3}"),
        ('a: {"replicas":10}', 'a: {"replicas":3}'),
        ("a: {replicas: '10'}", "a: {replicas: 3}"),
        ("a: {pool: solo}", "a: {replicas: 3, pool: solo}"),
        ("a: {}", "a: {replicas: 3}"),
        ("a: { }", "a: {replicas: 3 }"),
        ("a: {replicas: }", "a: {replicas: 3}"),
        ("a: {replicas: null}", "a: {replicas: 3}"),
        ("a: &x {pool: solo}", "a: &x {replicas: 3, pool: solo}"),
        ("a:\n      pool: solo", "a:\n      replicas: 3\n      pool: solo"),
        ("a: &x\n      pool: solo", "a: &x\n      replicas: 3\n      pool: solo"),
        ("a:\n      # why\n      pool: solo", "a:\n      # why\n      replicas: 3\n      pool: solo"),
        ("a:\n      replicas:\n      pool: solo", "a:\n      replicas: 3\n      pool: solo"),
        ("a:\n      replicas: # many\n      pool: solo", "a:\n      replicas: 3 # many\n      pool: solo"),
        ("a:\n      pool:\n        type: solo", "a:\n      replicas: 3\n      pool:\n        type: solo"),
        ("a: {replicas: 3}", "a: {replicas: 3}"),
    ],
)
def test_every_style_of_writing_is_kept(old: str, new: str) -> None:
    assert set_replicas(fleet(old), {"a": 3}) == fleet(new)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_and_byte_order_mark_stay(ending: str) -> None:
    text = "\ufeff" + fleet("a:\n      pool: solo").replace("\n", ending)
    assert set_replicas(text, {"a": 3}) == "\ufeff" + fleet("a:\n      replicas: 3\n      pool: solo").replace(
        "\n", ending
    )


def test_text_beyond_ascii_before_the_place_does_not_shift_it() -> None:
    text = fleet("é: 1\n    a: {replicas: 10}").replace("é: 1", 'b: {env: {X: "東京 🚀"}, replicas: 1}')
    assert set_replicas(text, {"a": 3}) == text.replace("replicas: 10", "replicas: 3")


def sources(*texts: str) -> list[Source]:
    return [Source(f"{number}.yaml", text) for number, text in enumerate(texts, 1)]


def test_the_file_that_says_the_count_last_is_edited() -> None:
    base, last = fleet("a: {replicas: 1}"), "spec: {groups: {a: {replicas: 2}}}"
    assert edit_replicas(sources(base, last), {"a": 3}) == {"2.yaml": last.replace("2", "3")}
    silent = "spec: {groups: {a: {paused: true}}}"
    assert edit_replicas(sources(base, silent), {"a": 3}) == {"1.yaml": fleet("a: {replicas: 3}")}


def test_a_count_from_the_defaults_is_written_into_the_last_file_with_the_group() -> None:
    base = fleet("a: {pool: solo}", more="  defaults: {replicas: 1}\n")
    last = "spec: {groups: {a: {paused: true}}}"
    assert edit_replicas(sources(base, last), {"a": 3}) == {
        "2.yaml": "spec: {groups: {a: {replicas: 3, paused: true}}}"
    }


def test_groups_of_several_files_change_together() -> None:
    first, second = fleet("a: {replicas: 1}"), "spec: {groups: {b: {replicas: 1}}}"
    assert set(edit_replicas(sources(first, second), {"a": 2, "b": 2})) == {"1.yaml", "2.yaml"}
    assert edit_replicas(sources(first, second), {"a": 1, "b": 1}) == {}


def test_bytes_are_taken_as_text_is() -> None:
    assert edit_replicas([Source("x", fleet("a: {replicas: 1}").encode())], {"a": 2}) == {
        "x": fleet("a: {replicas: 2}")
    }


@pytest.mark.parametrize("part", ["share", "autoscale"])
def test_a_group_that_has_a_part_of_the_budget_is_refused(part: str) -> None:
    with pytest.raises(UsageError, match=f"follow from its {part}") as caught:
        set_replicas(fleet(f"a: {{{part}: {{min: 1}}}}"), {"a": 3})
    assert f"{part}.min" in caught.value.hint


def test_an_unknown_group_is_refused_with_the_likely_one() -> None:
    with pytest.raises(UsageError, match="there is no group 'thumb'") as caught:
        set_replicas(GOOD, {"thumb": 3})
    assert "did you mean 'thumbs'?" in caught.value.hint


@pytest.mark.parametrize("count", [-1, 10_001])
def test_a_number_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="not a number of replicas"):
        set_replicas(GOOD, {"thumbs": count})


@pytest.mark.parametrize("group", ["a", "b"])
def test_a_count_shared_by_an_alias_is_refused(group: str) -> None:
    text = fleet("a: &x\n      replicas: 2\n    b: *x")
    with pytest.raises(UsageError, match="without changing something else") as caught:
        set_replicas(text, {group: 3})
    assert "aliases" in caught.value.hint


def test_an_alias_for_the_number_alone_is_replaced() -> None:
    text = fleet("a: {replicas: &n 2}\n    b: {replicas: *n}")
    assert set_replicas(text, {"b": 3}) == fleet("a: {replicas: &n 2}\n    b: {replicas: 3}")


def test_text_that_cannot_be_read_is_a_manifest_error() -> None:
    with pytest.raises(ManifestError):
        set_replicas("spec: [", {"a": 3})


@given(st.integers(0, 10_000), st.sampled_from(["thumbs", "reports", "beat"]), st.booleans())
def test_an_edit_changes_one_value_of_the_manifest(count: int, group: str, there: bool) -> None:
    text = GOOD if there else GOOD.replace("      replicas: 10\n", "").replace("      replicas: 1\n", "")
    budget = text.replace("concurrency: 80", "concurrency: 200000")
    new = read(set_replicas(budget, dict.fromkeys(("thumbs", "reports", "beat"), 1) | {group: count}))
    assert new.manifest.spec.groups[group].replicas == count
    old = read(GOOD).document["spec"]["groups"][group]
    assert {**old, "replicas": count} == new.document["spec"]["groups"][group]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a: {<<: {replicas: 1}}", "a: {replicas: 3, <<: {replicas: 1}}"),
        ("a:\n      <<: {replicas: 1}", "a:\n      replicas: 3\n      <<: {replicas: 1}"),
        ("b: &b {replicas: 1}\n    a:\n      <<: *b", "b: &b {replicas: 1}\n    a:\n      replicas: 3\n      <<: *b"),
        ("a: {<<: {pool: solo}, replicas: 1}", "a: {<<: {pool: solo}, replicas: 3}"),
    ],
)
def test_what_a_merge_key_brings_stays_for_the_others(old: str, new: str) -> None:
    assert set_replicas(fleet(old), {"a": 3}) == fleet(new)


@pytest.mark.parametrize(
    ("group", "edited"),
    [
        ('{"pool": "solo"}', '{"replicas": 3, "pool": "solo"}'),
        ("{}", '{"replicas": 3}'),
        ('{\n  "pool": "solo"\n}', '{\n  "replicas": 3,\n  "pool": "solo"\n}'),
        ('{\n\t"pool": "solo",\n\t"paused": true\n}', '{\n\t"replicas": 3,\n\t"pool": "solo",\n\t"paused": true\n}'),
        ('{"replicas": 1}', '{"replicas": 3}'),
    ],
)
def test_a_manifest_in_json_stays_json(group: str, edited: str) -> None:
    text = f'{{"metadata": {{"name": "x"}}, "spec": {{"groups": {{"a": {group}}}}}}}'
    new = set_replicas(text, {"a": 3})
    assert new == text.replace(group, edited)
    assert json.loads(new)["spec"]["groups"]["a"]["replicas"] == 3


@pytest.mark.parametrize(
    ("group", "message", "line"),
    [
        ("a: {replicas: 1, replicas: 2}", "is here twice", 8),
        ("a: {replicas: !!int 1}", "tags such as", 8),
        ("a: {replicas: 1, paused: no}", "some YAML tools read no as false", 8),
        ("b: {paused: yes}\n    a: {replicas: 1}", "some YAML tools read yes as true", 8),
    ],
)
def test_a_file_that_is_wrong_is_told_what_is_wrong(group: str, message: str, line: int) -> None:
    with pytest.raises(ManifestError) as caught:
        set_replicas(fleet(group), {"a": 3})
    assert [(message in problem.message, problem.line) for problem in caught.value.problems] == [(True, line)]
