"""A small manifest that would make a huge fleet is refused before anything is computed from it."""

from __future__ import annotations

import pytest

from fleet.core.manifest.parse import MOST_PROBLEMS, Source, parse
from fleet.errors import ManifestError
from tests.core.texts import fleet


def refused(text: str, **environ: str) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse([Source("fleet.yaml", text)], environ=environ)
    return caught.value


HUGE = {
    "solo by share": ("concurrency: 1000000", "a: {pool: solo, share: {weight: 1}}"),
    "threads by autoscale": ("concurrency: 1000000", "a: {pool: {type: threads, concurrency: 2}, autoscale: {}}"),
    "many groups": ("", "\n    ".join(f"a{n}: {{pool: solo, replicas: 9000}}" for n in range(3))),
    "children": ("", "a: {pool: {type: prefork, concurrency: 1000}, replicas: 9000}"),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_fleet_is_refused_at_once(name: str) -> None:
    budget, groups = HUGE[name]
    text = fleet(groups).replace("spec:\n", f"spec:\n  {budget}\n", 1) if budget else fleet(groups)
    (problem,) = refused(text).problems
    assert "00,000 are allowed" in problem.message or "20,000 are allowed" in problem.message
    assert "FLEET_MAX_REPLICAS" in problem.hint
    assert problem.line
    parse([Source("fleet.yaml", text)], environ={"FLEET_MAX_REPLICAS": "900000000"})


def test_slots_that_are_no_processes_are_not_counted() -> None:
    text = fleet("a: {pool: {type: gevent, concurrency: 1000}, replicas: 100}")
    parse([Source("fleet.yaml", text)], environ={})


def test_problems_are_cut_with_a_count() -> None:
    keys = ", ".join(f"unknownKey{n}: 1" for n in range(20_000))
    problems = refused(fleet(f"a: {{pool: solo, replicas: 1, {keys}}}")).problems
    assert len(problems) == MOST_PROBLEMS + 1 == 101
    assert problems[-1].message == "and 19,900 more problems"
