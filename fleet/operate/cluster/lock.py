"""The lock of a fleet in a cluster: a Lease, so that one command changes it at a time, from whichever machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from fleet.backends.kubernetes.client import ApiRefused, Cluster
from fleet.backends.kubernetes.kinds import LEASE
from fleet.backends.kubernetes.names import KEEPS, labels_of
from fleet.errors import LockHeld
from fleet.state.audit import who

LEASE_SECONDS = 60
"""A command that died keeps the others away for so long."""
_RENEW_SECONDS = 15.0


class ClusterLock:
    """Held from ``with`` to its end; whoever holds it calls ``renew`` while it works."""

    def __init__(self, fleet: str, cluster: Cluster, command: str, *, now: Callable[[], float] = time.time) -> None:
        self._fleet = fleet
        self._cluster = cluster
        self._now = now
        self._name = f"{fleet}-fleet"
        self._holder = f"{who()}@{socket.gethostname()} `{command}` (pid {os.getpid()})"
        self._lease: dict[str, Any] | None = None
        self._renewed_at = 0.0

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease["spec"] = {**lease["spec"], "holderIdentity": None}
            try:
                self._cluster.replace(LEASE, lease)
            except ApiRefused as error:
                if error.status not in (404, 409):  # it ran out, and another command has it
                    raise

    def renew(self) -> None:
        """Keep it. Raises LockHeld where it ran out and another command has taken it."""
        if self._lease is not None and self._now() - self._renewed_at >= _RENEW_SECONDS:
            self._write(self._lease)

    def _take(self) -> None:
        lease = self._cluster.get(LEASE, self._name)
        if lease is None:
            labels = {**labels_of(self._fleet), KEEPS: "lock"}
            metadata = {"name": self._name, "labels": labels}
            lease = {"apiVersion": LEASE.api, "kind": LEASE.name, "metadata": metadata, "spec": {}}
            self._lease = self._held_by_other(lambda: self._cluster.create(LEASE, self._filled(lease)))
            return
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") and not self._ran_out(spec):
            raise self._taken(str(spec["holderIdentity"]))
        self._write(lease)

    def _write(self, lease: dict[str, Any]) -> None:
        self._lease = self._held_by_other(lambda: self._cluster.replace(LEASE, self._filled(lease)))

    def _filled(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._renewed_at = self._now()
        moment = datetime.fromtimestamp(self._renewed_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": moment}
        return {**lease, "spec": {**(lease.get("spec") or {}), **spec}}

    def _held_by_other(self, write: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return write()
        except ApiRefused as error:
            if error.status != 409:
                raise
            self._lease = None
            now = self._cluster.get(LEASE, self._name) or {}
            raise self._taken(str((now.get("spec") or {}).get("holderIdentity") or "another command")) from error

    def _ran_out(self, spec: dict[str, Any]) -> bool:
        try:
            renewed = datetime.fromisoformat(spec["renewTime"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return True
        return self._now() - renewed > float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def _taken(self, holder: str) -> LockHeld:
        hint = f"wait until it is done; if it died, its lock ends after {LEASE_SECONDS} s"
        return LockHeld(f"fleet {self._fleet!r} in {self._cluster.place} is being changed by {holder}", hint=hint)
