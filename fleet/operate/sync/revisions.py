"""What a commit says: its manifest, the folder it starts from, its release; and what of that is kept."""

from __future__ import annotations

import posixpath
from collections.abc import Collection

from fleet.errors import FleetError, ManifestError, Problem
from fleet.file_access import make_folders
from fleet.inputs.manifest import LoadedManifest
from fleet.operate.sync.checkouts import Checkouts
from fleet.operate.sync.git import Repository
from fleet.operate.sync.models import FleetSource
from fleet.operate.sync.reconcile import environment, read, with_release
from fleet.operate.sync.releases import Releases, key_of
from fleet.operate.sync.state import SourcePlaces
from fleet.operate.sync.watcher import Doing, unheard

KEPT_RELEASES = 3


class Revisions:
    """The commits of one source, in a repository of our own."""

    def __init__(self, source: FleetSource, places: SourcePlaces) -> None:
        spec = source.spec.git
        self.places = places
        self.url = spec.url
        self.paths = list(spec.paths)
        self.repository = Repository(places.repository, spec.timeout, spec.max_size)
        self.checkouts = Checkouts(places.checkouts, self.repository, spec.max_size)
        self.releases = Releases(places.releases, environment())
        self._tidied: frozenset[str] = frozenset()

    def prepare(self) -> None:
        """Put right what a killed process left behind. The source's lock must be held."""
        make_folders(self.places.root)
        self.repository.prepare()
        self.checkouts.sweep()

    def manifest(self, commit: str, *, base: str = "", branch: str = "", doing: Doing = unheard) -> LoadedManifest:
        """The manifest of a commit, its release made. ``base``: the commit in whose checkout relative paths start.

        Raises ManifestError with every problem, and FleetError for a tree or a release that cannot be.
        """
        doing(f"reading {commit[:12]}")
        folder = self.checkouts.make(base or commit) / posixpath.dirname(self.paths[0])
        loaded = self._read(commit, str(folder), branch)
        asked = loaded.manifest.spec.release.source
        if asked is None:
            return loaded
        key = key_of(asked, self.checkouts.check(commit))
        doing(f"making the release of {commit[:12]}")
        return with_release(loaded, self.releases.make(asked, key=key, checkout=self.checkouts.make(commit)))

    def base_for(self, commit: str, base: str) -> str:
        """The commit whose checkout is the base: the one in use, while nothing but manifests changed since."""
        if not base or not self.repository.resolve(base):
            return commit
        marks = [self.checkouts.code_mark(one, but=self.paths) for one in (base, commit)]
        return base if marks[0] == marks[1] else commit

    def tidy(self, in_use: Collection[str], *, reached: Collection[str]) -> None:
        """Remove old checkouts and releases. ``in_use``: commits the fleet may need.  reached: others to keep."""
        needed = frozenset(in_use) - {""}
        if needed == self._tidied:
            return
        self._tidied = needed
        self.checkouts.tidy({*needed, *reached})
        keys, keep = set(), KEPT_RELEASES
        for commit in needed:
            try:
                asked = self._read(commit, "/", "").manifest.spec.release.source
            except FleetError:
                return  # it is not known which release it needs: all stay
            if asked is not None:
                keys.add(key_of(asked, self.repository.tree(commit)))
                keep = asked.keep
        self.releases.tidy(keys, keep=keep)

    def _read(self, commit: str, base: str, branch: str) -> LoadedManifest:
        texts = texts_of(self.repository, commit, self.paths)
        return read(texts, base=base, address=self.url, commit=commit, branch=branch, environ=environment())


def texts_of(repository: Repository, commit: str, paths: list[str]) -> list[tuple[str, bytes]]:
    """The manifest files of a commit. Raises ManifestError for every path that is not a file there."""
    entries = {entry.path: entry for entry in repository.tree(commit)}
    problems, texts = [], []
    for path in paths:
        entry = entries.get(path)
        if entry is None:
            is_folder = any(name.startswith(f"{path}/") for name in entries)
            what = "is a folder; name the files in it" if is_folder else "is not in the repository"
            problems.append(Problem(path, 0, 0, "", f"it {what}", "see spec.git.paths of the source"))
        elif not entry.mode.startswith("100"):
            problems.append(Problem(path, 0, 0, "", "it is no regular file", "name the file itself"))
        else:
            texts.append((path, repository.blob(entry.object_id)))
    if problems:
        raise ManifestError(problems)
    return texts
