"""Manifest text to a Manifest: read, merge, fill in, check; every problem at once with file:line:column and key path.

sources ─load─▶ trees ─merge─▶ one tree ─interpolate─▶ ─inherit─▶ complete groups ─validate─▶ Manifest ─check─▶ Parsed
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.core.manifest import merge, model_validation
from fleet.core.manifest.checks import fleet
from fleet.core.manifest.checks.totals import MOST_REPLICAS, check_totals
from fleet.core.manifest.interpolate import interpolate
from fleet.core.manifest.models import API_VERSION, KIND, Defaults, Manifest
from fleet.core.manifest.tree import Findings, Node, Path, Position, Source, path_text, plain
from fleet.core.manifest.yaml_reader import MAX_DEPTH, load
from fleet.core.manifest.yaml_scalars import resolve
from fleet.core.text.format import quoted, shown
from fleet.core.text.suggest import kind_of
from fleet.errors import ManifestError, Problem

__all__ = ["Parsed", "Position", "Positions", "Source", "from_document", "parse", "schema"]

MOST_PROBLEMS = 100
EXTENSION = "x-"
LIMIT_VARIABLE = "FLEET_MAX_REPLICAS"
"""Sets the ceiling on replicas of one manifest; with their children there may be ten times as many processes."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Where each value of a merged manifest is written."""

    tree: Node

    def at(self, path: Path | str) -> Position:
        """The place of a key path, or of the nearest thing around it that is written down."""
        parts: Path = tuple(path.split(".")) if isinstance(path, str) else path
        best = self.tree
        for length in range(1, len(parts) + 1):
            node = self.tree.get(*parts[:length])
            if node is None:
                break
            best = node
        return best.place

    def problem(self, path: Path | str, message: str, hint: str = "") -> Problem:
        """A problem at a key path, for checks that need more than the manifest."""
        place = self.at(path)
        text = path if isinstance(path, str) else path_text(path)
        return Problem(place.source, place.line, place.column, text, message, hint)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A manifest that holds, and what was noticed on the way.

    document: the merged, filled-in manifest as plain JSON values, groups complete and without ``spec.defaults``; what
    :func:`from_document` reads back to an equal manifest. No declared secret's value is in it.
    """

    manifest: Manifest
    positions: Positions
    warnings: tuple[Problem, ...]
    document: dict[str, Any]


def parse(sources: Sequence[Source], *, environ: Mapping[str, str]) -> Parsed:
    """One manifest from one or more texts, merged left to right. Raises ManifestError with every problem."""
    findings = Findings()
    trees = [load(source, findings) for source in sources]
    if not trees:
        findings.add(Position("manifest"), (), "no manifest was given", "name a file, such as manifests/prod.yaml")
    readable = [_without_extensions(tree) for tree in trees if tree is not None and _is_map(tree, findings)]
    if len(readable) < len(trees) or not readable:
        raise _refusal(findings)
    expanded = [merge.expand_shorthands(tree, findings) for tree in readable]
    read = _ReadVariables(environ)
    raw = merge.merge_all(expanded)
    tree = interpolate(raw, read, findings)
    try:
        return _finish(tree, findings, most_replicas=_most_replicas(environ))
    except ManifestError as error:
        texts = _filled_in(raw, tree)
        raise ManifestError([read.hidden_in(problem, texts) for problem in error.problems]) from None


class _ReadVariables(Mapping[str, str]):
    """The environment, and which of it a manifest has read: no problem shows such a value."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._read: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        value = self._environ[name]
        if value:
            self._read[value] = f"${{env:{name}}}"
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

    def hidden_in(self, problem: Problem, texts: Mapping[str, str]) -> Problem:
        """The problem with the manifest's own words where it shows a value that was filled in.

        texts: filled-in text -> as it is written.
        """
        pairs = {form: shown(raw) for full, raw in texts.items() for form in (shown(full), quoted(full))}
        pairs |= {value: name for value, name in self._read.items() if len(value) >= _SHORTEST_HIDDEN}
        message, hint = problem.message, problem.hint
        for form, instead in sorted(pairs.items(), key=lambda pair: -len(pair[0])):
            message, hint = message.replace(form, instead), hint.replace(form, instead)
        return replace(problem, message=message, hint=hint)


_SHORTEST_HIDDEN = 4


def _filled_in(before: Node, after: Node) -> dict[str, str]:
    """Each text into which variables were filled -> as it is written."""
    if isinstance(before.value, str) and isinstance(after.value, str):
        return {after.value: before.value} if after.value != before.value else {}
    pairs = zip(before.children(), after.children(), strict=True)
    return {full: raw for (_, old), (_, new) in pairs for full, raw in _filled_in(old, new).items()}


def from_document(document: Mapping[str, Any], *, name: str) -> Parsed:
    """The manifest of a ``Parsed.document`` kept earlier; ``name`` stands for its file in problems."""
    findings = Findings()
    if _is_deeper(document, MAX_DEPTH):
        findings.add(Position(name), (), f"it is nested more than {MAX_DEPTH} levels deep", "is this the right file?")
        raise _refusal(findings)
    tree = merge.expand_shorthands(_tree(document, Position(name)), findings)
    return _finish(tree, findings)


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest, shorthands included, as editors complete from it."""
    from fleet.core.manifest.schema import json_schema  # only the verbs `schema` and `init` need it

    return json_schema()


def _is_map(tree: Node, findings: Findings) -> bool:
    if isinstance(tree.value, dict):
        return True
    message = f"a manifest is a map of fields, and this is {kind_of(plain(tree))}"
    findings.add(tree.at, (), message, "start with `apiVersion:`, `kind:`, `metadata:` and `spec:`")
    return False


def _without_extensions(tree: Node) -> Node:
    """The tree without its ``x-…`` blocks, which people write to share what is in them by anchors and merge keys."""
    fields = {key: child for key, child in tree.fields().items() if not key.startswith(EXTENSION)}
    if (spec := fields.get("spec")) and spec.fields():
        kept = {key: child for key, child in spec.fields().items() if not key.startswith(EXTENSION)}
        fields["spec"] = replace(spec, value=kept)
    return replace(tree, value=fields)


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, Mapping | list | tuple):
        return False
    children = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)


def _tree(value: Any, at: Position) -> Node:
    if isinstance(value, Mapping):
        return Node({str(key): _tree(child, at) for key, child in value.items()}, at)
    if isinstance(value, list | tuple):
        return Node([_tree(child, at) for child in value], at)
    return Node(value, at)


def _most_replicas(environ: Mapping[str, str]) -> int:
    text = environ.get(LIMIT_VARIABLE, "")
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else MOST_REPLICAS


def _finish(tree: Node, findings: Findings, *, most_replicas: int | None = None) -> Parsed:
    tree, removed = merge.strip_nulls(merge.inherit(tree), findings)
    broken = _broken_paths(tree)
    for path, node in removed:
        if complaint := model_validation.unknown_key(path):
            findings.add(node.place, path, complaint.message, complaint.hint)
    tree = _with_numbers(tree)
    manifest = _shaped(tree, findings, broken)
    if manifest is not None:
        fleet.check(manifest, tree, findings, broken)
        if most_replicas is not None and not findings.problems:
            check_totals(manifest, tree, findings, most_replicas)
    if findings.problems or manifest is None:
        raise _refusal(findings)
    document = plain(tree)
    document["spec"].pop("defaults", None)
    spec = manifest.spec.model_copy(update={"defaults": Defaults.empty()})
    manifest = manifest.model_copy(update={"spec": spec})
    return Parsed(manifest, Positions(tree), tuple(findings.warnings), document)


def _broken_paths(node: Node, path: Path = ()) -> set[Path]:
    if node.broken:
        return {path}
    return {found for key, child in node.children() for found in _broken_paths(child, (*path, key))}


def _with_numbers(tree: Node) -> Node:
    """The tree with text from the environment as numbers, where fields are numbers and the text is one."""
    if not _holds_environment(tree):
        return tree
    _, complaints = model_validation.validate(plain(tree))
    for path in {complaint.path for complaint in complaints if complaint.wants_number}:
        node = tree.get(*path)
        if node is not None and node.from_env and isinstance(node.value, str):
            value, trap, _ = resolve(node.value)
            if isinstance(value, int | float) and not isinstance(value, bool) and not trap:
                tree = _replaced(tree, path, replace(node, value=value))
    return tree


def _holds_environment(node: Node) -> bool:
    return node.from_env or any(_holds_environment(child) for _, child in node.children())


def _replaced(tree: Node, path: Path, node: Node) -> Node:
    """The tree with another node at a path that exists."""
    if not path:
        return node
    below = {key: _replaced(child, path[1:], node) if key == path[0] else child for key, child in tree.children()}
    if isinstance(tree.value, list):
        return replace(tree, value=list(below.values()))
    return replace(tree, value={str(key): child for key, child in below.items()})


# shape: what is wrong is reported, then left out, so that the rest can be checked too


def _shaped(tree: Node, findings: Findings, broken: set[Path]) -> Manifest | None:
    document: dict[str, Any] = plain(tree)
    manifest, complaints = model_validation.validate(document, most_hints=MOST_PROBLEMS)
    known = broken | {complaint.meant for complaint in complaints if complaint.meant}
    seen: set[tuple[Position, str]] = set()
    for complaint in complaints:
        place = Positions(tree).at(complaint.path)
        if not _is_about(complaint.path, known) and (place, complaint.message) not in seen:
            findings.add(place, _shown_path(tree, complaint.path), complaint.message, complaint.hint)
        seen.add((place, complaint.message))
    broken |= known | {complaint.path for complaint in complaints}
    return manifest or _salvage(document, broken)


def _is_about(path: Path, broken: set[Path]) -> bool:
    return any(path[:length] in broken for length in range(len(path) + 1))


def _shown_path(tree: Node, path: Path) -> Path:
    node = tree.get(*path)
    return path[:-1] if node is not None and node.implied else path


def _salvage(document: dict[str, Any], broken: set[Path]) -> Manifest | None:
    """The manifest without what is wrong, for the checks that follow. Never given to a caller."""
    if not isinstance(document.get("spec"), dict):
        return None
    head: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "unnamed"}}
    document = {"spec": copy.deepcopy(document["spec"]), **head}
    paths = broken
    for _ in range(_MOST_ROUNDS):
        for path in paths:
            _drop(document, path)
        manifest, complaints = model_validation.validate(document)
        if manifest is not None:
            return manifest
        paths = {complaint.path[:-1] if complaint.is_missing else complaint.path for complaint in complaints}
    return None


_MOST_ROUNDS = 4


def _drop(document: Any, path: Path) -> None:
    if path[:1] != ("spec",):
        return
    for part in path[:-1]:
        document = document.get(part) if isinstance(document, dict) else None
    if isinstance(document, dict):
        document.pop(path[-1], None)
    elif isinstance(document, list) and isinstance(path[-1], int) and path[-1] < len(document):
        document[path[-1]] = "broken"


def _refusal(findings: Findings) -> ManifestError:
    unique = list(dict.fromkeys(findings.problems))
    order = {source: rank for rank, source in enumerate(dict.fromkeys(problem.source for problem in unique))}
    unique.sort(key=lambda problem: (order[problem.source], problem.line, problem.column))
    if len(unique) > MOST_PROBLEMS:
        more = Problem(unique[0].source, 0, 0, "", f"and {len(unique) - MOST_PROBLEMS:,} more problems")
        unique = [*unique[:MOST_PROBLEMS], more]
    return ManifestError(unique)
