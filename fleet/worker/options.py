"""The options of one worker process, read from a launch document or built by the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.core.spec import QueueSpec, WorkerSpec
from fleet.errors import FleetError
from fleet.replica import launch_document
from fleet.replica.launch_document import NO_FILE, DocumentError


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Everything a worker needs to know. ``broker_url`` is resolved: it may hold a password and is not for logs; empty
    where only the app knows it.

    document_path: the launch document it was read from.
    """

    spec: WorkerSpec
    replica: str
    digest: str
    broker_url: str
    record_path: Path | None = None
    history_path: Path | None = None
    document_path: Path | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """Names of the consumed queues, those of a higher priority first."""
        return tuple(queue.name for queue in sorted(self.spec.queues, key=lambda queue: -queue.priority))


def with_queues(spec: WorkerSpec, names: Sequence[str]) -> WorkerSpec:
    """The spec itself, or one with these queues where it names none."""
    return spec if spec.queues else replace(spec, queues=tuple(QueueSpec(name) for name in names))


def read_document(path: Path) -> WorkerOptions:
    """The options in a launch document. Raises FleetError where it cannot be read or has a wrong shape."""
    try:
        document = launch_document.read(path)
        url = document.broker_url
    except DocumentError as error:
        raise FleetError(str(error), hint=_APPLY_AGAIN) from error
    return WorkerOptions(
        spec=document.spec,
        replica=document.replica,
        digest=document.digest,
        broker_url=url,
        record_path=None if document.record == NO_FILE else document.record,
        history_path=None if document.starts == NO_FILE else document.starts,
        document_path=path,
    )


_APPLY_AGAIN = "run `fleet apply` again: it writes a new document"
