"""The revisions of a fleet in a cluster: kept there, one ConfigMap each, so that every machine sees the same ones."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleet.backends.kubernetes.client import Cluster
from fleet.backends.kubernetes.kinds import CONFIG_MAP, name_of
from fleet.backends.kubernetes.names import KEEPS, labels_of
from fleet.errors import Damaged, FleetError
from fleet.state.revisions import History, Revision, revision_of

_NAME = re.compile(r"-revision-(\d{4,})$")
_DATA = "revision.json.gz"
_MOST_BYTES = 900_000
"""A ConfigMap holds 1 MiB, names and labels among it."""


class ClusterHistory(History):
    """The revisions of one fleet, read and written through the API."""

    def __init__(self, fleet: str, cluster: Cluster, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(Path(fleet), now=now)
        self._fleet = fleet
        self._cluster = cluster
        self._labels = {**labels_of(fleet), KEEPS: "revision"}

    def numbers(self) -> list[int]:
        """The numbers that are kept, oldest first."""
        names = [name_of(one) for one in self._cluster.objects(CONFIG_MAP, self._labels)]
        return sorted(int(found[1]) for name in names if (found := _NAME.search(name)))

    def _name(self, number: int) -> str:
        return f"{self._fleet}-revision-{number:04d}"

    def _write(self, revision: Revision) -> None:
        packed = base64.b64encode(gzip.compress(json.dumps(asdict(revision)).encode(), mtime=0)).decode()
        if len(packed) > _MOST_BYTES:
            raise FleetError(
                f"the manifest is too large to be kept in the cluster: {len(packed):,} bytes packed, and a ConfigMap"
                f" holds {_MOST_BYTES:,}",
                hint="make several fleets of it",
            )
        document: dict[str, Any] = {
            "apiVersion": CONFIG_MAP.api,
            "kind": CONFIG_MAP.name,
            "metadata": {"name": self._name(revision.number), "labels": self._labels},
            "binaryData": {_DATA: packed},
        }
        self._cluster.apply(CONFIG_MAP, document)

    def _remove(self, number: int) -> None:
        self._cluster.delete(CONFIG_MAP, self._name(number))

    def _read(self, number: int) -> Revision | None:
        kept = self._cluster.get(CONFIG_MAP, self._name(number))
        if kept is None:
            return None
        try:
            text = gzip.decompress(base64.b64decode(kept["binaryData"][_DATA]))
            return revision_of(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError) as error:
            hint = f"remove the ConfigMap {self._name(number)}, and apply the manifest again"
            raise Damaged(f"revision {number} in {self._cluster.place} makes no sense: {error!r}", hint=hint) from error
