"""Problems of a manifest as SARIF 2.1.0, which code hosts show beside the lines of a pull request."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from fleet._version import __version__
from fleet.errors import Problem

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULE = "manifest"


def document(problems: Sequence[Problem], warnings: Sequence[Problem]) -> dict[str, Any]:
    """One run with a result for each problem and each warning."""
    driver = {
        "name": "fleet",
        "version": __version__,
        "rules": [{"id": RULE, "shortDescription": {"text": "What a fleet manifest must hold to be applied"}}],
    }
    results = [*(_result(one, "error") for one in problems), *(_result(one, "warning") for one in warnings)]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(problem: Problem, level: str) -> dict[str, Any]:
    text = problem.message + (f"\n{problem.hint}" if problem.hint else "")
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(posixpath.normpath(problem.source))}}
    if problem.line:
        place["region"] = {"startLine": problem.line, "startColumn": max(1, problem.column)}
    location: dict[str, Any] = {"physicalLocation": place}
    if problem.path:
        location["logicalLocations"] = [{"fullyQualifiedName": problem.path}]
    return {"ruleId": RULE, "level": level, "message": {"text": text}, "locations": [location]}
