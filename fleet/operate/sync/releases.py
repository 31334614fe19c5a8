"""Releases: a copy of the code and a virtual environment for each version of it, made once and kept a few times.

A release is named by the content of its folder in the repository, not by the commit: a commit that only scales a group
changes no code, and must not restart a worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.core.manifest.models import ReleaseSource
from fleet.core.text.format import listed
from fleet.errors import FleetError
from fleet.file_access import make_folders
from fleet.operate.sync import tree_rules
from fleet.operate.sync.checkouts import remove_old
from fleet.state.files import write_whole

BUILD_SECONDS = 1800.0
LOCKS = ("uv.lock", "requirements.lock", "requirements.txt")
_PINNED = re.compile(r"[A-Za-z0-9._-]+(\[[^\]]*\])?\s*===?\s*[^\s;#*]+(\s*;.*)?")
_DIRECT = re.compile(r"([A-Za-z0-9._-]+(\[[^\]]*\])?\s*@\s*\S+|\.{0,2}/\S+|\S+\.whl)(\s*;.*)?")
_VERBS = frozenset({"venv", "install", "check", "sync"})
_BUILDING = threading.Lock()
_KEY = re.compile(r"[0-9a-f]{16}")


class ReleaseFailed(FleetError):
    """A release could not be made."""


@dataclass(frozen=True, slots=True)
class Release:
    """One version of the code, ready to run."""

    key: str
    workdir: Path
    python: Path


def unpinned(text: str) -> list[str]:
    """Lines of a requirements file that do not say one exact version."""
    joined = re.sub(r"\\\r?\n", " ", text)
    loose = []
    for line in joined.splitlines():
        bare = re.sub(r"(^|\s)#.*", "", line)
        bare = re.sub(r"\s--hash[= ]\S+", "", bare).strip()
        if bare and not bare.startswith("-") and not _PINNED.fullmatch(bare) and not _DIRECT.fullmatch(bare):
            loose.append(bare)
        if re.match(r"(-r|-c|--requirement|--constraint|-e|--editable)\b", bare):
            loose.append(bare)
    return loose


def key_of(source: ReleaseSource, entries: Sequence[tree_rules.Entry]) -> str:
    """The name of the release: what is in its folder, and how it is made."""
    rows = [(one.mode, one.object_id, one.path) for one in tree_rules.below(entries, source.path)]
    how = (source.path, source.requirements, source.installer, source.python)
    return hashlib.sha256(repr((rows, how)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases of one source."""

    folder: Path
    environ: Mapping[str, str]

    def make(self, source: ReleaseSource, *, key: str, checkout: Path) -> Release:
        """The release, made now where it is missing. Raises ReleaseFailed."""
        place = self.folder / key
        release = Release(key, place / "code", place / "venv" / "bin" / "python")
        if (place / "complete").exists():
            return release
        code = checkout / source.path
        if not code.is_dir():
            raise ReleaseFailed(f"there is no folder {source.path!r} in the repository", hint="see spec.release.source")
        lock = _lock_file(code, source)
        with _BUILDING:
            if not (place / "complete").exists():
                self._build(source, release, lock=lock, code=code)
        return release

    def _build(self, source: ReleaseSource, release: Release, *, lock: str, code: Path) -> None:
        place = self.folder / release.key
        shutil.rmtree(place, ignore_errors=True)
        make_folders(place.parent)
        place.mkdir(mode=0o700)
        try:
            shutil.copytree(code, release.workdir, symlinks=True)
            self._install(source, release, release.workdir / lock)
            write_whole(place / "complete", release.key)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise

    def tidy(self, needed: Collection[str], *, keep: int) -> None:
        """Remove all but the needed and the newest."""
        remove_old(self.folder, _KEY, needed=needed, keep=keep)

    def _install(self, source: ReleaseSource, release: Release, lock: Path) -> None:
        uv = shutil.which("uv", path=self.environ.get("PATH"))
        if source.installer == "uv" and uv is None:
            raise ReleaseFailed("installer: uv, and there is no uv on this machine", hint="install uv, or write pip")
        base = source.python or sys.executable
        venv = release.python.parent.parent
        if lock.name == "uv.lock":
            if uv is None or source.installer == "pip":
                raise ReleaseFailed("uv.lock needs uv", hint="install uv, or export the lock as requirements.lock")
            words = [uv, "sync", "--frozen", "--no-dev", "--no-install-project", "--python", base]
            self._call(words, release.workdir, {"UV_PROJECT_ENVIRONMENT": str(venv)})
            return
        if loose := unpinned(lock.read_text(errors="replace")):
            hint = "lock them, for instance with `uv pip compile` or `pip-compile`"
            named = listed(loose, most=5)
            raise ReleaseFailed(f"{lock.name} does not say one exact version of each: {named}", hint=hint)
        if uv is not None and source.installer != "pip":
            self._call([uv, "venv", "--quiet", "--python", base, str(venv)], release.workdir)
            words = [uv, "pip", "install", "--quiet", "--python", str(release.python), "--no-deps", "-r", lock.name]
            self._call(words, lock.parent)
            self._call([uv, "pip", "check", "--python", str(release.python)], release.workdir)
            return
        self._call([base, "-m", "venv", str(venv)], release.workdir)
        pip = [str(release.python), "-m", "pip", "--no-input", "--disable-pip-version-check"]
        self._call([*pip, "install", "--quiet", "--no-deps", "-r", lock.name], lock.parent)
        self._call([*pip, "check"], release.workdir)

    def _call(self, words: list[str], folder: Path, more: Mapping[str, str] | None = None) -> None:
        environ = {name: value for name, value in self.environ.items() if not name.startswith(("FLEET_", "GIT_"))}
        environ.pop("VIRTUAL_ENV", None)
        try:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env={**environ, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ReleaseFailed(f"cannot run {words[0]}: {error.strerror}") from error
        with process:
            try:
                said, _ = process.communicate(timeout=BUILD_SECONDS)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                raise ReleaseFailed(f"{Path(words[0]).name} took longer than {BUILD_SECONDS:g} s") from error
        if process.returncode != 0:
            lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
            telling = [line for line in lines if line.lower().startswith("error")] or lines or ["it said nothing"]
            verb = next((word for word in words[1:] if word in _VERBS), "")
            raise ReleaseFailed(f"{Path(words[0]).name} {verb} failed: {telling[-1][:300]}")


def _lock_file(code: Path, source: ReleaseSource) -> str:
    if source.requirements is not None:
        if not (code / source.requirements).is_file():
            raise ReleaseFailed(f"there is no file {source.requirements!r} in {source.path!r}")
        return source.requirements
    for name in LOCKS:
        if (code / name).is_file():
            return name
    hint = f"add one of {', '.join(LOCKS)}; an empty requirements.txt is one, too"
    raise ReleaseFailed(f"no locked requirements in {source.path!r}", hint=hint)
