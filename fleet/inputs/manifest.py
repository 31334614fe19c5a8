"""Reads manifests: from files, from an earlier revision, or from a saved document."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.core.expand.facts import Facts
from fleet.core.manifest import parse
from fleet.core.manifest.models import Manifest
from fleet.errors import Problem
from fleet.inputs.git import commit_of
from fleet.state.files import STDIN, read_named
from fleet.state.revisions import Origin, Revision


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A valid manifest, where it came from, and warnings about it.

    pins: what it resolved to on this machine; None: it is resolved when planning.
    """

    manifest: Manifest
    document: Mapping[str, Any]
    origin: Origin
    warnings: tuple[Problem, ...] = ()
    message: str = ""
    positions: parse.Positions | None = None
    pins: Facts | None = None

    @property
    def name(self) -> str:
        """The fleet's name."""
        return self.manifest.name


def read_sources(paths: Sequence[str]) -> list[parse.Source]:
    """The texts of manifest files; ``-`` is the standard input. Raises UsageError for what cannot be read."""
    return [parse.Source(path, read_named(path)) for path in paths]


def from_sources(sources: Sequence[parse.Source], *, environ: Mapping[str, str] = os.environ) -> LoadedManifest:
    """The manifest that texts make together. Raises ManifestError with every problem."""
    parsed = parse.parse(sources, environ=environ)
    files = [source.name for source in sources if source.name != STDIN]
    base = Path(files[0]).absolute().parent if files else Path.cwd()
    origin = Origin(str(base), tuple(str(Path(file).absolute()) for file in files), commit_of(base))
    return LoadedManifest(parsed.manifest, parsed.document, origin, parsed.warnings, positions=parsed.positions)


def from_files(paths: Sequence[str]) -> LoadedManifest:
    """The manifest in files, merged left to right."""
    return from_sources(read_sources(paths))


def from_revision(revision: Revision, *, message: str = "") -> LoadedManifest:
    """The manifest that was applied as a revision, with what it resolved to then."""
    name = f"revision {revision.number}"
    loaded = from_document(revision.manifest, origin=revision.origin, name=name, message=message)
    return replace(loaded, pins=revision.facts)


def from_document(document: Mapping[str, Any], *, origin: Origin, name: str, message: str = "") -> LoadedManifest:
    """A manifest that was read before and kept."""
    parsed = parse.from_document(document, name=name)
    return LoadedManifest(parsed.manifest, parsed.document, origin, parsed.warnings, message)
