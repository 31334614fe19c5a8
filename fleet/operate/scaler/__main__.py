"""First process of the controller's pod: ``python -m fleet.operate.scaler MANIFEST.json``.

Of several such pods one leads: it holds the Lease ``<fleet>-fleet-controller``, carries the label that the Service asks
for, and decides. The others wait. A look that fails is said, and KEDA falls back once the numbers are too old.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.backends.kubernetes.client import IN_CLUSTER, Cluster, Place
from fleet.backends.kubernetes.jobs import TOKEN_FOLDER
from fleet.backends.kubernetes.kinds import POD, Object, name_of
from fleet.backends.kubernetes.leader import RENEW_SECONDS, Leadership
from fleet.backends.kubernetes.names import CONTROLLER, LEADS, selector_of
from fleet.backends.kubernetes.scaler_objects import SCALER_PORT, controller_name
from fleet.broker.backlog.sampler import Sampler
from fleet.core.autoscale.in_cluster import scaled_in_cluster
from fleet.core.autoscale.sample import Backlog
from fleet.core.desired import Desired
from fleet.core.expand.in_cluster import desired_in_cluster, pod_slots
from fleet.core.expand.specs import secret_variable, secrets_of
from fleet.core.manifest.models import Manifest
from fleet.core.manifest.parse import from_document
from fleet.errors import FleetError
from fleet.operate.controller.backlog import BacklogReader
from fleet.operate.scaler.loop import MANAGER, Scaler
from fleet.operate.scaler.server import Board, ScalerServer
from fleet.replica.pod_report import PATH, PORT, PodReport, report_of

_ANSWER_SECONDS = 1.5
_API_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Mounted:
    """The manifest that is mounted, with the secrets that the pod was given as variables."""

    manifest: Manifest
    environ: Mapping[str, str]

    def secrets(self) -> Mapping[str, str]:
        """Name -> value, of those that are there."""
        variables = {name: secret_variable(name) for name in secrets_of(self.manifest)}
        return {name: self.environ[one] for name, one in variables.items() if one in self.environ}

    def desired(self) -> Desired:
        """The groups with the specs of their pods, as this process can ask their apps."""
        desired = desired_in_cluster(self.manifest)
        groups = {
            name: replace(
                group,
                spec=replace(
                    group.spec,
                    python=sys.executable,
                    pool=replace(group.spec.pool, concurrency=pod_slots(self.manifest, group)),
                ),
            )
            if group.spec.kind != "command"
            else group
            for name, group in desired.groups.items()
        }
        return replace(desired, groups=groups)


def ask_pod(pod: Object) -> PodReport | None:
    """What a pod tells of its worker, by its own address."""
    address = str((pod.get("status") or {}).get("podIP") or "")
    if not address:
        return None
    connection = http.client.HTTPConnection(address, PORT, timeout=_ANSWER_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        connection.request("GET", PATH)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status == 200:
            return report_of(json.loads(text))
    return None


def main(arguments: list[str]) -> int:
    """Lead or wait until TERM; the exit code of the process."""
    if len(arguments) != 1:
        print("usage: python -m fleet.operate.scaler MANIFEST.json", file=sys.stderr)
        return 64
    try:
        namespace = (Path(TOKEN_FOLDER) / "namespace").read_text().strip()
        document = json.loads(Path(arguments[0]).read_bytes())
        mounted = Mounted(from_document(document, name=arguments[0]).manifest, os.environ)
        over = _ended_by_signals()
        board = Board()
        with ScalerServer(board, port=SCALER_PORT):
            cluster = Cluster(Place(IN_CLUSTER, namespace), timeout_seconds=_API_SECONDS)
            Candidate(mounted, cluster, os.environ["FLEET_POD"], board).run(over)
    except (OSError, ValueError, KeyError) as error:
        print(f"this process runs in no pod of a controller: {error!r}", file=sys.stderr)
        return 1
    except FleetError as error:
        print(f"{error.message}\n  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def _ended_by_signals() -> threading.Event:
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    return over


class Candidate:
    """One pod of the controller: waits for the lead, and decides while it has it."""

    def __init__(self, mounted: Mounted, cluster: Cluster, pod: str, board: Board) -> None:
        fleet, desired = mounted.manifest.name, mounted.desired()
        self._fleet, self._cluster, self._pod, self._board = fleet, cluster, pod, board
        self._leadership = Leadership(cluster, name=controller_name(fleet), fleet=fleet, holder=pod)
        self._reader = BacklogReader(mounted, lambda url, options: Sampler(url, fleet=fleet, options=options))

        def read(groups: Any) -> Backlog:
            return self._reader.read(desired, groups)

        found = scaled_in_cluster(mounted.manifest, desired)
        self._scaler = Scaler(desired, found, cluster, read_backlog=read, ask_pod=ask_pod)
        self._led = False
        self._said = ""

    def run(self, over: threading.Event) -> None:
        """Until it is over; then others may lead at once."""
        try:
            while not over.is_set():
                began = time.monotonic()
                self._board.alive()
                self.round()
                pause = self._scaler.tick_seconds if self._led else RENEW_SECONDS
                over.wait(max(0.0, began + pause - time.monotonic()))
        finally:
            self._board.show(None)
            self._reader.close()
            if self._led:
                self._label(self._pod, leads=False)
            self._leadership.give_up()

    def round(self) -> None:
        """One look at the Lease and, where this one leads, at the fleet."""
        try:
            leads = self._leadership.look()
            if leads != self._led:
                self._changed(leads=leads)
            if leads:
                look = self._scaler.tick()
                if self._leadership.leads:  # else another one may decide already
                    self._board.show(look)
                    self._say(json.dumps(look.to_json()) if look.note or look.decision.moves else "")
        except FleetError as error:
            self._say(error.message)
        if self._led and not self._leadership.leads:
            self._changed(leads=False)

    def _changed(self, *, leads: bool) -> None:
        self._led = False
        self._say("leads" if leads else "leads no longer")
        self._scaler.forget()
        self._board.show(None)
        if leads:
            others = self._cluster.objects(POD, {**selector_of(self._fleet, CONTROLLER), LEADS: "true"})
            for pod in others:
                if name_of(pod) != self._pod:
                    self._label(name_of(pod), leads=False)
            self._label(self._pod, leads=True)
            self._led = True

    def _label(self, pod: str, *, leads: bool) -> None:
        """The Service sends KEDA to the pod with this label."""
        patch = {"metadata": {"labels": {LEADS: "true" if leads else None}}}
        try:
            self._cluster.merge(POD, pod, patch, manager=MANAGER)
        except FleetError as error:
            self._say(f"pod {pod} is not labelled: {error.message}")
            if leads:
                raise

    def _say(self, line: str) -> None:
        if line and line != self._said:
            print(line, flush=True)
        self._said = line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
