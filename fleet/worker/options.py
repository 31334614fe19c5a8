"""What one worker process was started to be: its options, read from a launch document or built by the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.core.spec import WorkerSpec
from fleet.errors import FleetError

DOCUMENT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Everything a worker needs to know. ``broker_url`` is resolved: it may hold a password and is not for logs.

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


def read_document(path: Path) -> WorkerOptions:
    """The options in a launch document. Raises FleetError where it cannot be read or is of another shape."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FleetError(f"the launch document {path} cannot be read: {error}", hint=_APPLY_AGAIN) from error
    try:
        return replace(from_document(document), document_path=path)
    except (KeyError, TypeError, ValueError) as error:
        raise FleetError(
            f"the launch document {path} is not one of this version: {error!r}", hint=_APPLY_AGAIN
        ) from error


def from_document(document: Mapping[str, Any]) -> WorkerOptions:
    """The options in a launch document that was read already."""
    if document["format"] != DOCUMENT_FORMAT:
        raise ValueError(f"format {document['format']!r}, expected {DOCUMENT_FORMAT}")
    spec = WorkerSpec.from_json(document["spec"])
    record, history = document.get("record"), document.get("starts")
    return WorkerOptions(
        spec=spec,
        replica=document["replica"],
        digest=document["digest"],
        broker_url=_broker_url(spec, document.get("secrets") or {}),
        record_path=Path(record) if record else None,
        history_path=Path(history) if history else None,
    )


def _broker_url(spec: WorkerSpec, secrets: Mapping[str, str]) -> str:
    url = secrets[spec.broker.secret] if spec.broker.secret else spec.broker.url
    if not url:
        raise ValueError("no broker URL in the spec")
    return url


_APPLY_AGAIN = "run `fleet apply` again: it writes the document anew"
