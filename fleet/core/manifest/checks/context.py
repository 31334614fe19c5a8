"""What the cross-field checks look at, and how they note what they find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleet.core.manifest.models import Group, Manifest
from fleet.core.manifest.tree import Findings, Node, Path, Position
from fleet.core.text.format import shown
from fleet.core.text.suggest import did_you_mean


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a check looks at: the manifest and where each value is written.

    broken: paths with a problem already.  touched: these and all paths around them.
    """

    manifest: Manifest
    tree: Node
    findings: Findings
    broken: set[Path]
    touched: frozenset[Path]

    def groups(self) -> Iterator[tuple[str, Group]]:
        """In the order of their names."""
        for name in sorted(self.manifest.spec.groups):
            yield name, self.manifest.spec.groups[name]

    def names(self, *path: str) -> list[str]:
        """The keys written at a path, with broken ones."""
        node = self.tree.get(*path)
        return sorted(node.fields()) if node else []

    def is_broken(self, *path: str | int) -> bool:
        """Is something wrong at this path, below it or around it?"""
        return path in self.touched or any(path[:length] in self.broken for length in range(1, len(path)))

    def problem(self, path: Path, message: str, hint: str = "") -> None:
        self.findings.add(self._place(path), path, message, hint)

    def problem_once(self, path: Path, message: str, hint: str = "") -> None:
        """Note a problem unless the same was noted at this place: what groups inherit is written once."""
        place = self._place(path)
        known = ((old.source, old.line, old.column, old.message) for old in self.findings.problems)
        if (place.source, place.line, place.column, message) not in known:
            self.findings.add(place, path, message, hint)

    def warn(self, path: Path, message: str, hint: str = "") -> None:
        self.findings.warn(self._place(path), path, message, hint)

    def declared(self, path: Path, secret: str) -> None:
        """Note a problem at a path unless the secret it names is declared."""
        known = self.names("spec", "secrets")
        if secret not in known:
            hint = did_you_mean(secret, known) or f"declare it: `spec: {{secrets: {{{secret}: {{file: /path}}}}}}`"
            self.problem_once(path, f"the secret {shown(secret)} is not declared under spec.secrets", hint)

    def _place(self, path: Path) -> Position:
        node = self.tree
        for part in path:
            below = node.get(part)
            if below is None:
                break
            node = below
        return node.place
