"""The files of a fleet's replicas: written whole or not at all.

Three kinds: the program file in ``conf.d`` (exists exactly while supervisord runs or has stopped the replica), the
launch document in ``specs`` (0600: with the one that an image is loaded by, the only place on disk that holds secret
values), the record and crash history in ``records``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from fleet.core.desired import Replica, is_replica
from fleet.core.spec import FLEETS_ACCOUNT, AccountSpec, WorkerSpec
from fleet.errors import FleetError, Refused
from fleet.file_access import SMALL_BYTES, give_folder, let_pass, make_folders, make_private, read_file
from fleet.replica import launch_document
from fleet.replica import record as records
from fleet.replica.counters import counters_file, read_counters, write_counters
from fleet.replica.ending import ending_file
from fleet.replica.launch_document import NO_FILE, DocumentError, LaunchDocument
from fleet.replica.notice import look_now
from fleet.state import trust
from fleet.state.files import Stamp, cannot_write, stamp_of, write_all
from fleet.state.paths import Places, is_home_of_account

HEADER = "; Written by fleet"


class Folder:
    """Reads and writes the files of one fleet's replicas."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._specs = os.fspath(places.specs)  # joined once: an observation asks for hundreds
        self._seen: dict[str, tuple[Stamp, LaunchDocument | None]] = {}

    def make(self) -> None:
        """Create every folder of the fleet, for its owner only."""
        places = self.places
        trust.check(places)
        try:
            make_folders(places.root.parent)
            for folder in (places.root, *places.folders):
                make_private(folder, passable=folder in places.passable())
        except OSError as error:
            raise cannot_write(Path(error.filename or places.root), error) from error

    def _make_ways(self, accounts: Iterable[AccountSpec]) -> None:
        """Make the folders of these accounts, and let them pass to these. Raises CannotWrite."""
        places = self.places
        try:
            for account in set(accounts) - {FLEETS_ACCOUNT}:
                make_private(places.accounts, passable=True)
                make_private(places.account_specs(account.uid).parent, passable=True)
                make_private(places.account_specs(account.uid), passable=True)
                give_folder(places.account_records(account.uid), account.uid, account.gid)
                for folder in places.passable():
                    make_private(folder, passable=True)
                if not is_home_of_account(places.root.parent):
                    let_pass(places.root.parent)
        except OSError as error:
            raise cannot_write(Path(error.filename or places.accounts), error) from error

    def _write_documents(self, documents: Iterable[LaunchDocument]) -> None:
        """Write launch documents, and their copies for the accounts that read them."""
        documents = list(documents)
        self._make_ways(document.spec.account for document in documents)
        write_all({document.path: document.to_bytes() for document in documents})
        for document in documents:
            if document.copy != NO_FILE:
                account = document.spec.account
                write_all({document.copy: document.to_bytes()}, owner=(account.uid, account.gid))

    def write(self, programs: Mapping[Replica, str], *, secrets: Mapping[str, str]) -> None:
        """Write the launch documents, then the program files of these replicas."""
        documents = [self.document(replica, text, secrets) for replica, text in programs.items()]
        for document in documents:
            self._remove_of_other_accounts(document)
            self.places.starts_file(document.replica).unlink(missing_ok=True)
        self._write_documents(documents)
        write_all({self.places.program_file(replica.name): text.encode() for replica, text in programs.items()})

    def rewrite(self, programs: Mapping[Replica, str], *, secrets: Mapping[str, str]) -> None:
        """Put these specs into the launch documents of replicas that are there already; all else in them stays.

        A lost document is written again, for the digest of the existing program file.
        """
        documents = []
        for replica, text in programs.items():
            kept = _read(self.places.spec_file(replica.name))
            if kept is not None and kept.digest == replica.digest:
                documents.append(replace(kept, spec=replica.spec))
            else:
                program = _text(self.places.program_file(replica.name)) or text
                documents.append(self.document(replica, program, secrets))
        self._write_documents(documents)
        for document in documents:
            look_now(document.record)

    def remove(self, replicas: Iterable[str]) -> None:
        """Remove the program files and launch documents of these replicas. A program file that is not fleet's stays."""
        for replica in replicas:
            if not is_replica(replica):
                continue
            program = self.places.program_file(replica)
            if self.places.spec_file(replica).exists() or _text(program).startswith(HEADER):
                program.unlink(missing_ok=True)
            self.places.spec_file(replica).unlink(missing_ok=True)
            self.places.starts_file(replica).unlink(missing_ok=True)
            for uid in self.places.account_uids():
                (self.places.account_specs(uid) / f"{replica}.json").unlink(missing_ok=True)

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

    def _remove_of_other_accounts(self, document: LaunchDocument) -> None:
        """What a replica of this name left that ran under another account."""
        if document.copy != NO_FILE or self.places.account_uids():
            self._keep_counters(document.replica)
        for uid in self.places.account_uids():
            if document.copy == NO_FILE or uid != document.spec.account.uid:
                (self.places.account_specs(uid) / document.path.name).unlink(missing_ok=True)
                for path in (document.record, document.starts):
                    (self.places.account_records(uid) / path.name).unlink(missing_ok=True)
        if document.copy != NO_FILE:
            for path in (document.record, document.starts):
                (self.places.records / path.name).unlink(missing_ok=True)

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
        name = f"{self._specs}/{replica}.json"
        if (stamp := stamp_of(name)) is None:
            return None
        if (seen := self._seen.get(replica)) is None or seen[0] != stamp:
            document = _read(Path(name))
            seen = self._seen[replica] = (stamp, document and _without_secrets(document))
        return seen[1]

    def programs(self, *, besides: Collection[str] = ()) -> set[str]:
        """Replicas that have a program file of fleet's, but for these."""
        files = _files_in(self.places.conf_d, ".conf") - set(besides)
        return {name for name in files if is_replica(name) and _text(self.places.program_file(name)).startswith(HEADER)}

    def documents(self) -> set[str]:
        """Replicas that have a launch document."""
        return {name for name in _files_in(self.places.specs, ".json") if is_replica(name)}

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
        patterns = [*((folder, ".*.tmp") for folder in folders), (places.records, ".*")]
        for uid in places.account_uids():
            patterns += [(places.account_specs(uid), ".*.tmp"), (places.account_records(uid), ".*")]
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

    def document(self, replica: Replica, program: str, secrets: Mapping[str, str]) -> LaunchDocument:
        """The launch document of a replica."""
        places, account = self.places, replica.spec.account
        own = account == FLEETS_ACCOUNT
        records = places.records if own else places.account_records(account.uid)
        return LaunchDocument(
            path=places.spec_file(replica.name),
            fleet=places.fleet,
            replica=replica.name,
            digest=replica.digest,
            spec=replica.spec,
            secrets=self._secrets(replica, secrets),
            record=records / f"{replica.name}.rec",
            log=places.log_file(replica.name),
            starts=records / f"{replica.name}.starts",
            program=program,
            copy=NO_FILE if own else places.account_specs(account.uid) / f"{replica.name}.json",
        )


def _files_in(folder: Path, suffix: str) -> set[str]:
    """The names of the files that end so, without that end."""
    try:
        return {name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix)}
    except OSError:
        return set()


def used_secrets(spec: WorkerSpec) -> tuple[str, ...]:
    """Names of the secrets a spec needs."""
    return tuple(sorted(spec.secret_marks()))


def _without_secrets(document: LaunchDocument) -> LaunchDocument:
    return replace(document, secrets={}) if document.secrets else document


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
