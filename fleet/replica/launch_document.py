"""The launch document of a replica: a backend writes it, the replica's launcher and worker read it."""

from __future__ import annotations

import json
import marshal
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.core.spec import WorkerSpec, shared
from fleet.file_access import NAMED_BYTES, read_file

FORMAT = 1
NO_FILE = Path(os.devnull)
"""The path of the record, log or crash history of a worker that keeps none: one that a person runs by hand."""


class DocumentError(Exception):
    """The document cannot be read, is of another shape or format, or lacks the value of a secret."""


@dataclass(frozen=True, slots=True)
class LaunchDocument:
    """What one replica is started as. On disk it has mode 0600: only such files hold values of secrets.

    path: of the document itself.  digest: of ``spec``, which forces a restart.  secrets: name -> value.
    record, log, starts: the replica's record, log and crash history.  program: the text of its supervisor program file.
    copy: where its account reads it, if that is not fleet's own; what the account changes there, only it believes.
    """

    path: Path
    fleet: str
    replica: str
    digest: str
    spec: WorkerSpec
    secrets: Mapping[str, str]
    record: Path = NO_FILE
    log: Path = NO_FILE
    starts: Path = NO_FILE
    program: str = ""
    copy: Path = NO_FILE

    @property
    def worker_path(self) -> Path:
        """The document as the worker reads it."""
        return self.path if self.copy == NO_FILE else self.copy

    @property
    def lock(self) -> Path:
        """Held by the replica's process for as long as it runs."""
        if self.copy == NO_FILE:
            return self.record.with_suffix(".lock")
        return self.run_folder / "records" / f"{self.replica}.lock"

    @property
    def run_folder(self) -> Path:
        """The fleet's ``run`` folder, where the document's own folder is."""
        return self.path.parent.parent

    @property
    def broker_url(self) -> str:
        """The broker's URL, from the spec or from its secret; ``""`` where the replica takes no tasks."""
        broker = self.spec.broker
        return self.secret(broker.secret) if broker.secret else broker.url

    def secret(self, name: str) -> str:
        """The value of a secret. Raises DocumentError where it is missing."""
        if name not in self.secrets:
            raise DocumentError(f"the value of secret {name!r} is missing from {self.path}: run `fleet apply` again")
        return self.secrets[name]

    def to_bytes(self) -> bytes:
        """The document as it is written; :func:`read` reads it back to an equal value."""
        document = {
            "format": FORMAT,
            "fleet": self.fleet,
            "replica": self.replica,
            "digest": self.digest,
            "spec": self.spec.to_json(),
            "secrets": dict(self.secrets),
            "record": str(self.record),
            "log": str(self.log),
            "starts": str(self.starts),
            "program": self.program,
            **({} if self.copy == NO_FILE else {"copy": str(self.copy)}),
        }
        return (json.dumps(document, indent=1) + "\n").encode()


def read(path: Path) -> LaunchDocument:
    """The document at ``path``: a file of this account or of root's. Raises DocumentError."""
    try:
        values: dict[str, Any] = json.loads(read_file(path, limit_bytes=NAMED_BYTES, own=not _is_descriptor(path)))
        if values["format"] != FORMAT:
            raise DocumentError(f"{path} is a launch document of format {values['format']!r}, not {FORMAT}")
        return LaunchDocument(
            path=path,
            fleet=values["fleet"],
            replica=values["replica"],
            digest=values["digest"],
            spec=_spec(marshal.dumps(values["spec"], _NO_REFERENCES)),
            secrets=values["secrets"],
            record=Path(values["record"]),
            log=Path(values["log"]),
            starts=Path(values["starts"]),
            program=values.get("program", ""),
            copy=Path(values.get("copy", NO_FILE)),
        )
    except OSError as error:
        raise DocumentError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DocumentError(f"{path} is not a launch document: {error!r}") from error


@lru_cache(maxsize=64)
def _spec(document: bytes) -> WorkerSpec:
    """The spec of a marshalled document: replicas of a group have the same one, and reading it takes longest."""
    return shared(WorkerSpec.from_json(marshal.loads(document)))


_NO_REFERENCES = 2
"""A version of the format in which equal documents are equal bytes."""


def _is_descriptor(path: Path) -> bool:
    """Whether the document is an open file of this process, as a worker that a person runs by hand has it."""
    return path.parent == Path("/proc/self/fd")
