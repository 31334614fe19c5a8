"""The files of a fleet's replicas: written whole or not at all.

Three kinds: the program file in ``conf.d`` (exists exactly while supervisord runs or has stopped the replica), the
launch document in ``specs`` (0600: the only place on disk that holds secret values), the record and crash history in
``records``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from fleet.core.desired import Replica, is_replica
from fleet.core.spec import WorkerSpec
from fleet.errors import FleetError, Refused
from fleet.file_access import SMALL_BYTES, make_folders, make_private, read_file
from fleet.replica import launch_document
from fleet.replica import record as records
from fleet.replica.counters import counters_file, read_counters, write_counters
from fleet.replica.ending import ending_file
from fleet.replica.launch_document import DocumentError, LaunchDocument
from fleet.state import trust
from fleet.state.files import cannot_write, write_all
from fleet.state.paths import Places

HEADER = "; Written by fleet"
_Stamp = tuple[int, int, int]


class Folder:
    """Reads and writes the files of one fleet's replicas."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._seen: dict[str, tuple[_Stamp, LaunchDocument | None]] = {}

    def make(self) -> None:
        """Create every folder of the fleet, for its owner only."""
        places = self.places
        trust.check(places)
        try:
            make_folders(places.root.parent)
            for folder in (places.root, *places.folders):
                make_private(folder)
        except OSError as error:
            raise cannot_write(Path(error.filename or places.root), error) from error

    def starts_file(self, replica: str) -> Path:
        """The crash history of a replica, kept by its launcher."""
        return self.places.records / f"{replica}.starts"

    def write(self, programs: Mapping[Replica, str], *, secrets: Mapping[str, str]) -> None:
        """Write the launch documents, then the program files of these replicas."""
        documents = {
            self.places.spec_file(replica.name): self.document(replica, text, secrets)
            for replica, text in programs.items()
        }
        write_all(documents)
        for replica in programs:
            self.starts_file(replica.name).unlink(missing_ok=True)
        write_all({self.places.program_file(replica.name): text.encode() for replica, text in programs.items()})

    def rewrite(self, programs: Mapping[Replica, str], *, secrets: Mapping[str, str]) -> None:
        """Put these specs into the launch documents of replicas that are there already; all else in them stays.

        A lost document is written again, for the digest of the existing program file.
        """
        documents = {}
        for replica, text in programs.items():
            path = self.places.spec_file(replica.name)
            kept = _read(path)
            if kept is not None and kept.digest == replica.digest:
                documents[path] = replace(kept, spec=replica.spec).to_bytes()
            else:
                program = _text(self.places.program_file(replica.name)) or text
                documents[path] = self.document(replica, program, secrets)
        write_all(documents)

    def remove(self, replicas: Iterable[str]) -> None:
        """Remove the program files and launch documents of these replicas. A program file that is not fleet's stays."""
        for replica in replicas:
            if not is_replica(replica):
                continue
            program = self.places.program_file(replica)
            if self.places.spec_file(replica).exists() or _text(program).startswith(HEADER):
                program.unlink(missing_ok=True)
            self.places.spec_file(replica).unlink(missing_ok=True)
            self.starts_file(replica).unlink(missing_ok=True)

    def remove_records(self, replicas: Iterable[str]) -> None:
        """Remove the records and crash histories of these replicas. Their logs and their lock files stay.

        An earlier process may still hold such a lock, and a lock on a new file of the same name would not exclude it.
        """
        for replica in replicas:
            self._keep_counters(replica)
            self.places.record_file(replica).unlink(missing_ok=True)
            ending_file(self.places.records, replica).unlink(missing_ok=True)

    def _keep_counters(self, replica: str) -> None:
        """What the last process has done outlives its record; a full disk does not keep a replica from going."""
        path = counters_file(self.places.counters, replica)
        before = read_counters(path)
        after = before.with_record(records.read(self.places.record_file(replica)))
        if after != before:
            with contextlib.suppress(OSError):
                write_counters(path, after)

    def clear(self) -> None:
        """Remove fleet's files in ``conf.d``, ``specs``, ``images``: for a daemon that does not run. Records stay."""
        self.remove(self.programs() | self.documents())
        for file in self.places.images.glob("*"):
            file.unlink(missing_ok=True)
        for leftover in self.leftovers(older_than_seconds=0):
            leftover.unlink(missing_ok=True)

    def edited(self, replicas: Iterable[str]) -> dict[str, str]:
        """Of these running replicas those whose program file was edited or lost, with the text it should have."""
        known = ((name, launch) for name in replicas if (launch := self.launch(name)) is not None)
        return {
            name: launch.program for name, launch in known if _text(self.places.program_file(name)) != launch.program
        }

    def restore(self, replicas: Iterable[str]) -> tuple[str, ...]:
        """Restore program files of these running replicas that were edited or lost; returns their names."""
        edited = self.edited(replicas)
        write_all({self.places.program_file(name): text.encode() for name, text in edited.items()})
        return tuple(sorted(edited))

    def launch(self, replica: str) -> LaunchDocument | None:
        """The launch document without its secrets; None where none can be read. Unchanged files are read once."""
        path = self.places.spec_file(replica)
        try:
            status = path.stat()
        except OSError:
            return None
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if (seen := self._seen.get(replica)) is None or seen[0] != stamp:
            document = _read(path)
            seen = self._seen[replica] = (stamp, document and replace(document, secrets={}))
        return seen[1]

    def programs(self) -> set[str]:
        """Replicas that have a program file of fleet's."""
        files = self.places.conf_d.glob("*.conf")
        return {path.stem for path in files if is_replica(path.stem) and _text(path).startswith(HEADER)}

    def documents(self) -> set[str]:
        """Replicas that have a launch document."""
        return {path.stem for path in self.places.specs.glob("*.json") if is_replica(path.stem)}

    def foreign(self) -> tuple[Path, ...]:
        """Program files in ``conf.d`` that are not fleet's."""
        own = self.programs()
        return tuple(sorted(path for path in self.places.conf_d.glob("*.conf") if path.stem not in own))

    def refuse_foreign(self) -> None:
        """Raise Refused for a file that supervisord would run and fleet did not write."""
        if foreign := self.foreign():
            message = f"{foreign[0]} is not fleet's, and supervisord would run it"
            raise Refused(message, hint="move it away; a program of your own belongs into a supervisord of your own")

    def leftovers(self, *, older_than_seconds: float = 60.0) -> tuple[Path, ...]:
        """Temporary files of a writer that was killed; young ones may belong to a writer at work."""
        places, before = self.places, time.time() - older_than_seconds
        folders = (places.conf_d, places.specs, places.run, places.counters)
        patterns = (*((folder, ".*.tmp") for folder in folders), (places.records, ".*"))
        found = (path for folder, pattern in patterns for path in folder.glob(pattern))
        return tuple(sorted(path for path in found if path.lstat().st_mtime <= before))

    def _secrets(self, replica: Replica, given: Mapping[str, str]) -> dict[str, str]:
        """Name -> value; what is not given is what another replica was started with, if it is the same value."""
        marks = replica.spec.secret_marks()
        found = {name: given[name] for name in marks if name in given}
        if len(found) < len(marks):
            for path in sorted(self.places.specs.glob("*.json")):
                other = _read(path)
                if other is not None:
                    shared = other.spec.secret_marks().items() & marks.items()
                    found = {name: other.secrets[name] for name, _ in shared if name in other.secrets} | found
        if missing := sorted(marks.keys() - found.keys()):
            message = f"{replica.name}: the value of secret {missing[0]!r} is missing"
            raise FleetError(message, hint="no source and no running replica has the one that was applied: fleet apply")
        return {name: found[name] for name in sorted(found)}

    def document(self, replica: Replica, program: str, secrets: Mapping[str, str]) -> bytes:
        """The launch document of a replica as it is written."""
        places = self.places
        return LaunchDocument(
            path=places.spec_file(replica.name),
            fleet=places.fleet,
            replica=replica.name,
            digest=replica.digest,
            spec=replica.spec,
            secrets=self._secrets(replica, secrets),
            record=places.record_file(replica.name),
            log=places.log_file(replica.name),
            starts=self.starts_file(replica.name),
            program=program,
        ).to_bytes()


def used_secrets(spec: WorkerSpec) -> tuple[str, ...]:
    """Names of the secrets a spec needs."""
    return tuple(sorted(spec.secret_marks()))


def _read(path: Path) -> LaunchDocument | None:
    try:
        return launch_document.read(path)
    except DocumentError:
        return None


def _text(path: Path) -> str:
    try:
        return read_file(path, limit_bytes=SMALL_BYTES, own=True).decode()
    except (OSError, ValueError):
        return ""
