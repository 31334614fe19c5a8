"""The status of a fleet in a cluster: the same table as of a host, and the revisions that are kept there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from fleet.backends.kubernetes import pod_status
from fleet.backends.kubernetes.client import ApiRefused
from fleet.backends.kubernetes.kinds import name_of
from fleet.cli.cluster_target import ClusterTarget
from fleet.cli.live_view import every_second, height, redraw
from fleet.cli.output import Output, cut
from fleet.cli.view import status_document, status_text
from fleet.core.desired import Desired
from fleet.core.expand.in_cluster import desired_in_cluster
from fleet.core.status import Status
from fleet.errors import FleetError, NotReady
from fleet.inputs.manifest import LoadedManifest, from_revision
from fleet.operate.cluster.cluster_fleet import ClusterFleet

_ASK = ("python3", "-P", "-m", "fleet", "health", "-o", "json")
_AT_ONCE = 16
_FORBIDDEN = 403


class Looker:
    """Looks at the fleet; how it saw the workers is said in ``source``."""

    def __init__(self, there: ClusterTarget) -> None:
        self._fleet = there.fleet
        self._desired, self._revision = _last(there)
        self._may_ask = True
        self.source = ""

    def look(self) -> Status:
        """The status now: pods and Deployments, and inside each pod what `fleet health` says."""
        fleet = self._fleet
        pods, deployments, jobs = fleet.pods(), fleet.deployments(), fleet.jobs()
        began = {name_of(pod): moment for pod in pods if (moment := pod_status.began_at(pod))}
        names = list(began)
        inside = self._asked(names)
        self.source = self._said(names, inside)
        now = fleet.now()
        uptimes = {pod: max(0.0, now - datetime.fromisoformat(moment).timestamp()) for pod, moment in began.items()}
        seen = pod_status.Seen(deployments, pods, inside, uptimes, jobs)
        return pod_status.status_of(self._desired, seen, fleet=fleet.name, revision=self._revision)

    def _asked(self, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """What `fleet health` says in each pod. Where it may not be run at all, no pod is asked again."""
        if not names or not self._may_ask:
            return {}
        first, *rest = names
        try:
            found = {first: _inside(self._fleet, first)}
        except ApiRefused as error:
            if error.status != _FORBIDDEN:
                raise
            self._may_ask = False
            return {}
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found |= zip(rest, threads.map(lambda pod: _inside(self._fleet, pod), rest), strict=True)
        return {pod: said for pod, said in found.items() if said}

    def _said(self, names: Sequence[str], inside: Mapping[str, Any]) -> str:
        if not self._may_ask:
            return (
                "from the conditions of the pods alone: context"
                f" {self._fleet.place.context!r} may not create pods/exec, so slots, tasks and counts are not known"
            )
        silent = [name for name in names if name not in inside]
        return f"no answer from `fleet health` in {', '.join(silent[:3])}" if silent else ""


def _inside(fleet: ClusterFleet, pod: str) -> Mapping[str, Any]:
    """The one replica of a pod, as its record says; empty where it gives no answer. Raises ApiRefused if forbidden."""
    try:
        said = fleet.cluster.run(pod, _ASK)
    except ApiRefused as error:
        if error.status == _FORBIDDEN:
            raise
        return {}
    except FleetError:
        return {}
    try:
        replicas = json.loads(said)["replicas"]
    except (ValueError, KeyError, TypeError):
        return {}
    return dict(replicas[0]) if replicas else {}


def _last(there: ClusterTarget) -> tuple[Desired | None, int]:
    """What was applied last, else what the manifest says; nothing of a fleet whose revisions may not be read."""
    latest = there.fleet.history.latest()
    if latest is not None:
        return _wanted(there.fleet, from_revision(latest)), latest.number
    return (_wanted(there.fleet, there.loaded) if there.loaded is not None else None), 0


def _wanted(fleet: ClusterFleet, loaded: LoadedManifest) -> Desired | None:
    """Of a fleet whose groups move, those that are here; None where no group is."""
    part = fleet.here(loaded).manifest
    return desired_in_cluster(part) if part.spec.groups else None


def status(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """Print the status, once or every second."""
    looker = Looker(there)

    def text(seen: Status) -> str:
        return status_text(seen, footer=[looker.source] if looker.source else [], colour=out.colour)

    if not args.watch:
        seen = looker.look()
        out.either({**status_document(seen), "source": looker.source}, text(seen))
        return NotReady.exit_code if args.exit_code and not seen.ready else 0
    if out.is_json:
        every_second(lambda: out.line({**status_document(looker.look()), "source": looker.source}))
    elif out.stdout.isatty():
        redraw(out, lambda: "\n".join(cut(text(looker.look()).splitlines(), height=height())))
    else:
        every_second(lambda: out.facts(text(looker.look()) + "\n\n"))
    return 0
