"""The logs of a fleet's pods as one, in the order of time."""

from __future__ import annotations

import argparse
import heapq
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from fleet.backends.kubernetes.client import ApiRefused
from fleet.backends.kubernetes.kinds import label_of, name_of
from fleet.cli.cluster_flow import chosen, there_names
from fleet.cli.cluster_target import ClusterTarget
from fleet.cli.output import Output, group_colour, painted
from fleet.core.text.format import one_line
from fleet.errors import FleetError
from fleet.operate.cluster.cluster_fleet import ClusterFleet

LINES = 50
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, order=True)
class _Line:
    """``moment`` as the cluster writes it: it sorts as text."""

    moment: str
    pod: str
    text: str
    group: str


def logs(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """Print the logs of all pods, or of those of some groups."""
    fleet = there.fleet
    pods = _pods(fleet, args)
    query = {"sinceTime": datetime.fromtimestamp(args.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")} if args.since else {}
    last = args.lines if args.lines is not None else None if args.since else LINES
    if last is not None:
        query["tailLines"] = str(last)
    kept = list(heapq.merge(*(_lines(fleet, pod, query, out) for pod in pods)))
    shown = kept if last is None else kept[-last:] if last else []
    width = max(map(len, pods), default=0)
    for line in shown:
        _print(line, width, out)
    if args.follow:
        until = {pod: max((line.moment for line in kept if line.pod == pod), default="") for pod in pods}
        for line in _followed(fleet, args, until, out):
            _print(line, max(width, len(line.pod)), out)
    return 0


def _pods(fleet: ClusterFleet, args: argparse.Namespace) -> list[str]:
    groups, named = chosen(fleet, there_names(args), with_jobs=True)
    return [*named, *(name_of(one) for one in fleet.pods() if label_of(one, "app.kubernetes.io/name") in groups)]


def _lines(fleet: ClusterFleet, pod: str, query: dict[str, str], out: Output) -> Iterator[_Line]:
    try:
        for line in fleet.cluster.log_lines(pod, timestamps="true", **query):
            moment, _, text = line.decode("utf-8", "replace").partition(" ")
            yield _Line(moment, pod, text, _group(fleet.name, pod))
    except ApiRefused as error:
        if error.status not in (400, 404):  # its container has not begun, or the pod has gone
            raise
        out.say(f"{pod}: no log yet: {error.message}")


def _group(fleet: str, pod: str) -> str:
    """The group in a pod's name, which ends with two marks of the cluster's own."""
    return pod.rsplit("-", 2)[0].removeprefix(f"{fleet}-")


def _followed(fleet: ClusterFleet, args: argparse.Namespace, until: dict[str, str], out: Output) -> Iterator[_Line]:
    """Lines as they are written, of pods that come later as well; does not end."""
    lines: queue.Queue[_Line | FleetError] = queue.Queue()
    reading: dict[str, threading.Thread] = {}

    def read(pod: str) -> None:
        query = {"follow": "true"} | ({"sinceTime": until[pod]} if until.get(pod) else {})
        try:
            for line in _lines(fleet, pod, query, out):
                if line.moment > until.get(pod, ""):
                    until[pod] = line.moment
                    lines.put(line)
        except FleetError as error:
            lines.put(error)

    while True:
        for pod in _pods(fleet, args):
            if pod not in reading or not reading[pod].is_alive():
                reading[pod] = threading.Thread(target=read, args=(pod,), daemon=True)
                reading[pod].start()
        try:
            line = lines.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            continue
        if isinstance(line, FleetError):
            raise line
        yield line


def _print(line: _Line, width: int, out: Output) -> None:
    if out.is_json:
        out.line({"replica": line.pod, "at": line.moment, "line": line.text})
        return
    style = group_colour(line.group)
    text = one_line(line.text, most=len(line.text) + 1)
    out.facts(f"{painted(f'{line.pod:<{width}}', style, colour=out.colour)} | {text}")
