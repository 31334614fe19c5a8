"""First process of a pod with several replicas: keeps `fleet run` on the mounted manifest, which keeps them.

``python -m fleet.packed_pod MANIFEST.json``. This process stays: it passes signals on, reaps orphans, tells a scaler
and Prometheus what the replicas do, and has the manifest applied again when it changes. It ends with the exit code of
`fleet run`, whose drain TERM begins.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from fleet import launch
from fleet.pod import LOOK_SECONDS, PASSED_ON, reaped, served
from fleet.replica.pod_records import records_of_pod
from fleet.replica.pod_report import POD_VARIABLE, pod_index

FIRST_INDEX_VARIABLE = "FLEET_FIRST_INDEX"
_MEANT_FOR_FLEET = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
"""The others are for a worker, and would end `fleet run`."""
MOST_REPLICAS = 100
"""In a pod: so far apart are the indices of two pods at least."""


def main(arguments: list[str]) -> int:
    """Run the pod's replicas until the end of `fleet run`; its exit code."""
    if len(arguments) != 1:
        print("usage: python -m fleet.packed_pod MANIFEST.json", file=sys.stderr)
        return 64
    source = Path(arguments[0])
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})  # waited for below, from the first moment
    try:
        before = source.read_bytes()
        fleet = str(json.loads(before)["metadata"]["name"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        print(f"{source} is not the manifest of a pod: {error}", file=sys.stderr)
        print("  hint: mount the ConfigMap that `fleet render --target kubernetes` makes", file=sys.stderr)
        return 1
    child = os.fork()
    if child == 0:
        _become(source, os.environ)
    with served(fleet, lambda: records_of_pod(os.environ), several=True):
        return look_after(child, source, before)


def first_index(environ: Mapping[str, str]) -> int:
    """The lowest index of this pod's replicas. Brokers tell holders of messages apart by their names."""
    return pod_index(environ.get(POD_VARIABLE) or environ.get("HOSTNAME") or "") * MOST_REPLICAS


def _become(source: Path, environ: Mapping[str, str]) -> NoReturn:
    """`fleet run`, in a process group of its own."""
    try:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON | {signal.SIGCHLD})
        command = [sys.executable, "-P", "-m", "fleet", "run", str(source), "--logs"]
        os.execve(sys.executable, command, {**environ, FIRST_INDEX_VARIABLE: str(first_index(environ))})
    except OSError as error:
        launch.say(f"cannot run fleet: {error}")
        sys.stderr.flush()
        os._exit(1)


def look_after(child: int, source: Path, before: bytes) -> int:
    """Until `fleet run` has ended; its exit code. ``before``: the manifest that it was started with."""
    while True:
        caught = signal.sigtimedwait(PASSED_ON | {signal.SIGCHLD}, LOOK_SECONDS)
        if caught is not None and caught.si_signo in _MEANT_FOR_FLEET:
            os.kill(child, caught.si_signo)  # not reaped yet, so the pid is still its own
        if (code := reaped(child)) is not None:
            return code
        after = _read(source, before)
        if after != before:
            before = after
            os.kill(child, signal.SIGHUP)


def _read(source: Path, before: bytes) -> bytes:
    """The manifest now; as before while it cannot be read."""
    try:
        return source.read_bytes()
    except OSError:
        return before


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
