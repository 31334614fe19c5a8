"""A manifest that is being put together from other files: programs, notes with their place, secrets."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fleet.authoring.yaml_writer import free_name

STOP_SIGNALS = frozenset({"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH"})
"""Those that ``stop.signal`` may name."""


def _no_file(_path: str) -> str | None:
    return None


def _no_matches(_pattern: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Files:
    """What an importer may look up: the text of a file beside those it was given, and the files of a pattern.

    read: path -> text, or None where there is no such file or it is no text.  matches: pattern -> paths.
    """

    read: Callable[[str], str | None] = _no_file
    matches: Callable[[str], Sequence[str]] = _no_matches


@dataclass(frozen=True, slots=True)
class OfCommand:
    """A part of a group that only a command has, such as ``stop: {signal: INT}``; ``left_out`` is the note where the
    program turns out to be a Celery worker."""

    field: str
    value: object
    left_out: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class After:
    """Something that is to run before: a group of that name, or what the note says where there is none.

    completed: it must have ended well.
    """

    name: str
    left_out: str = ""
    line: int = 0
    completed: bool = False


@dataclass(slots=True)
class Program:
    """One program as a format describes it, before it becomes a group.

    ``words`` run as they are, or ``shell`` is a line for a shell. ``inherit`` names variables of the surroundings,
    ``env_files`` files with variables (``-`` before a path: it may be missing). ``fields`` are further fields of the
    group, in the manifest's words; ``of_command`` those of a command alone.
    """

    name: str
    line: int = 0
    words: list[str] = field(default_factory=list)
    shell: str = ""
    shell_program: str = "sh"
    env: dict[str, str] = field(default_factory=dict)
    inherit: dict[str, str] = field(default_factory=dict)
    env_files: list[str] = field(default_factory=list)
    secret_env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    group: str = ""
    umask: str = ""
    fields: dict[str, object] = field(default_factory=dict)
    of_command: list[OfCommand] = field(default_factory=list)
    after: list[After] = field(default_factory=list)


@dataclass(slots=True)
class DraftGroup:
    """A group so far: its fields, and what is decided when all groups are known.

    ``python`` is the interpreter of a Celery worker, ``stem`` what numbered nodes have in common, ``package`` the
    first part of the app's name, ``wants_beat`` the beat that ``-B`` ran inside it, ``order`` its place at the start.
    """

    fields: dict[str, object]
    name: str
    source: str = ""
    line: int = 0
    workdir: str = ""
    umask: str = ""
    python: str = ""
    stem: str = ""
    broker: str = ""
    is_celery: bool = False
    is_beat: bool = False
    package: str = ""
    wants_beat: list[str] = field(default_factory=list)
    order: int | None = None
    after: list[After] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    """Everything read so far. ``source`` is the file that is being read, ``folder`` where it lies, as seen from the
    manifest.

    named: name as in a file -> keys of groups.  read_on_the_way: texts of files that others include.
    """

    files: Files = field(default_factory=Files)
    source: str = ""
    folder: str = "."
    groups: dict[str, DraftGroup] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    named: dict[str, list[str]] = field(default_factory=dict)
    read_on_the_way: set[str] = field(default_factory=set)

    def beside(self, path: str) -> str:
        """A path beside the file that is being read, as seen from the manifest."""
        return path if path.startswith("/") or self.folder == "." else posixpath.normpath(f"{self.folder}/{path}")

    def included(self, path: str) -> str | None:
        """The text of a file that the one being read includes; it is not read for itself as well."""
        text = self.files.read(path)
        if text is not None:
            self.read_on_the_way.add(text)
        return text

    def note(self, text: str, line: int = 0) -> None:
        """Add a note for the reader, once, with its place."""
        place = f"{self.source}:{line}" if line else self.source
        whole = " ".join(f"{place}: {text}".split())
        if whole not in self.notes:
            self.notes.append(whole)

    def add(self, group: DraftGroup) -> str:
        """Take the group under a name as close to its own as the rules allow. Returns that name."""
        key = free_name(group.name, self.groups)
        group.source, group.fields = self.source, {"replicas": 1, **group.fields}
        others = {self.groups[other].source for other in self.named.get(group.name, ())} - {self.source}
        if others:
            self.note(f"{group.name} is also in {', '.join(sorted(others))}: keep one of the two groups", group.line)
        self.groups[key] = group
        self.named.setdefault(group.name, []).append(key)
        return key

    def add_node(self, group: DraftGroup) -> None:
        """A worker; those with equal fields and the same stem (``w1``, ``w2``) are replicas of one group."""
        for other in self.groups.values():
            same = (other.stem, other.source, other.workdir) == (group.stem, self.source, group.workdir)
            if same and {**other.fields, "replicas": 1} == {"replicas": 1, **group.fields}:
                other.fields["replicas"] = int(str(other.fields["replicas"])) + 1
                return
        taken = any(other.stem == group.stem and other.source == self.source for other in self.groups.values())
        group.name = group.name if taken else group.stem
        self.add(group)

    def secret(self, wanted: str, source: dict[str, str]) -> str:
        """The name of a declared secret with this source."""
        for name, known in self.secrets.items():
            if known == source:
                return name
        name = free_name(wanted, self.secrets)
        self.secrets[name] = source
        return name
