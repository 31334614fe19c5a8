"""Who of several processes works: whoever holds a Lease of the cluster, and renews it.

Clocks of machines differ, so another's Lease is judged by how long this process has seen it unchanged. A holder stops
to work before others may think that it has gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fleet.backends.kubernetes.client import ApiRefused, Cluster
from fleet.backends.kubernetes.kinds import LEASE
from fleet.backends.kubernetes.names import KEEPS, labels_of
from fleet.errors import FleetError

SECONDS = 20
"""A holder that died keeps the others waiting for so long."""
RENEW_SECONDS = 5.0
_STOP_SECONDS = 13.0
"""A holder that could not renew its Lease for so long works no more."""


@dataclass(frozen=True, slots=True)
class _Unchanged:
    """A Lease of another, and since when it was seen like this, by this process's own clock."""

    version: str
    since: float


class Leadership:
    """One candidate for a Lease. ``look`` is called every few seconds. ``seconds``: as ``SECONDS``, for this Lease."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        name: str,
        fleet: str,
        holder: str,
        seconds: int = SECONDS,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self.name = name
        self._labels = {**labels_of(fleet), KEEPS: "leader"}
        self._holder = holder
        self._seconds = seconds
        self._now = now
        self._monotonic = monotonic
        self._lease: dict[str, Any] | None = None
        self._renewed_at = 0.0
        self._other: _Unchanged | None = None
        self.held_by = ""

    @property
    def leads(self) -> bool:
        """Whether this process may work now."""
        return self._lease is not None and self._monotonic() - self._renewed_at < _STOP_SECONDS

    def look(self) -> bool:
        """Renew the Lease, or take it where it is free. Whether this process leads after that; raises FleetError where
        the cluster gives no answer and it does not lead any longer."""
        if self.leads and self._monotonic() - self._renewed_at < RENEW_SECONDS:
            return True
        try:
            self._renew_or_take()
        except FleetError:
            if not self.leads:
                self._lease = None
                raise
        return self.leads

    def _renew_or_take(self) -> None:
        began = self._monotonic()
        try:
            if self._lease is not None:
                self._held(self._cluster.replace(LEASE, self._filled(self._lease)), began)
                return
            found = self._cluster.get(LEASE, self.name)
            if found is None:
                self._held(self._cluster.create(LEASE, self._filled(self._new())), began)
            elif self._is_free(found):
                self._held(self._cluster.replace(LEASE, self._filled(found)), began)
        except ApiRefused as error:
            if error.status not in (404, 409):
                raise
            self._lease = None  # another one was quicker

    def _held(self, lease: dict[str, Any], began: float) -> None:
        self._lease, self._renewed_at, self._other, self.held_by = lease, began, None, self._holder

    def _is_free(self, lease: dict[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        self.held_by = str(spec.get("holderIdentity") or "")
        if self.held_by in ("", self._holder):
            return True
        version, now = str(lease["metadata"].get("resourceVersion")), self._monotonic()
        if self._other is None or self._other.version != version:
            self._other = _Unchanged(version, now)
        return now - self._other.since > float(spec.get("leaseDurationSeconds") or SECONDS)

    def _new(self) -> dict[str, Any]:
        metadata = {"name": self.name, "labels": self._labels}
        return {"apiVersion": LEASE.api, "kind": LEASE.name, "metadata": metadata, "spec": {}}

    def _filled(self, lease: dict[str, Any]) -> dict[str, Any]:
        moment = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": self._seconds, "renewTime": moment}
        return {**lease, "spec": {**(lease.get("spec") or {}), **spec}}

    def give_up(self) -> None:
        """Let others lead at once, as far as the cluster can be told."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease["spec"] = {**lease["spec"], "holderIdentity": None}
            try:
                self._cluster.replace(LEASE, lease)
            except FleetError:
                return  # it runs out by itself
