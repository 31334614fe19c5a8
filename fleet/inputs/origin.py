"""Files that people name to be converted: single ones, patterns, and what a folder holds."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.authoring.convert import AUTO, Files, kind_of
from fleet.errors import UsageError
from fleet.state.files import STDIN

MOST_BYTES = 1 << 20
MOST_DEPTH = 4
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "env", "site-packages", "dist", "build"})
_NAMES = (
    *("Procfile", "Procfile.*", "*.procfile", "compose*.yml", "compose*.yaml", "docker-compose*.yml"),
    *("docker-compose*.yaml", "*.service", "supervisor*.conf", "supervisor*.ini", "*.conf", "*.ini", "celeryd"),
    *("celery", "celery.default", "celeryd.*", "*.sh", "*.yml", "*.yaml"),
)
"""Names that files of a known kind have; in a folder, no other file is opened."""

_SURE = ("Procfile", "compose*.y*ml", "docker-compose*.y*ml", "*.service", "supervisor*", "celeryd")
"""Names that promise a known kind: one that is none is reported as left."""


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """Files to convert, in a fixed order, and files of a promising name that were left, each with why."""

    files: tuple[str, ...]
    left: tuple[tuple[str, str], ...] = ()


def files_of(named: Sequence[str], *, kind: str, on_progress: Callable[[int, int], object] | None = None) -> FoundFiles:
    """The files behind names, patterns and folders. Raises UsageError for what is not there.

    kind: in a folder only files of this kind are taken; with ``auto`` those of every kind.  on_progress: hears of each
    folder how many of its files were looked at, and how many there are.
    """
    files: list[str] = []
    left: list[tuple[str, str]] = []
    for name in named:
        if name == STDIN or os.path.isfile(name):
            files.append(name)
        elif os.path.isdir(name):
            found = _in_folder(Path(name), kind, on_progress or (lambda _done, _all: None))
            files += found.files
            left += found.left
        elif matches := sorted(glob.glob(name, recursive=True)):
            files += [match for match in matches if os.path.isfile(match)]
        else:
            raise UsageError(f"cannot read {name}: there is no such file or folder", hint="name files to convert")
    return FoundFiles(tuple(dict.fromkeys(files)), tuple(dict.fromkeys(left)))


def _in_folder(folder: Path, kind: str, on_progress: Callable[[int, int], object]) -> FoundFiles:
    files: list[str] = []
    left: list[tuple[str, str]] = []
    candidates = _candidates(folder)
    for number, path in enumerate(candidates):
        on_progress(number, len(candidates))
        name = str(path)
        text, why = _text(path)
        found = kind_of(text, source=name) if text is not None else ""
        if found and kind in {AUTO, found}:
            files.append(name)
        elif found:
            left.append((name, f"this is {found}"))
        elif why or any(fnmatch.fnmatch(path.name, each) for each in _SURE):
            left.append((name, why or "of no known kind"))
    return FoundFiles(tuple(files), tuple(left))


def _candidates(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        kept = sorted(each for each in folders if each not in _SKIPPED and not each.startswith("."))
        folders[:] = kept if depth < MOST_DEPTH - 1 else []
        found += [Path(place, name) for name in sorted(names) if any(fnmatch.fnmatch(name, each) for each in _NAMES)]
    return found


def _text(path: Path) -> tuple[str | None, str]:
    try:
        if path.stat().st_size > MOST_BYTES:
            return None, f"larger than {MOST_BYTES:,} bytes"
        return path.read_bytes().decode(), ""
    except OSError as error:
        return None, error.strerror or "cannot be read"
    except UnicodeDecodeError:
        return None, "not UTF-8 text"


def lookup(named: Sequence[str]) -> Files:
    """What importers may read besides: absolute paths, and paths beside the files that were named.

    A unit names its files by the path they have on the machine (``/etc/default/celeryd``): where that is not there,
    one of the same name beside the files that were named is taken.
    """
    folders = [Path(name).parent for name in named if name != STDIN] or [Path()]

    def places(path: str) -> list[Path]:
        beside = [folder / path for folder in folders] if not path.startswith("/") else [Path(path)]
        return beside + [folder / Path(path).name for folder in dict.fromkeys(folders)]

    def read(path: str) -> str | None:
        return next((text for place in places(path) if place.is_file() for text in [_text(place)[0]] if text), None)

    def matches(pattern: str) -> Sequence[str]:
        found = [sorted(glob.glob(str(place))) for place in places(pattern)]
        return next((paths for paths in found if paths), [])

    return Files(read, matches)
