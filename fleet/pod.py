"""First process of a pod's container: makes a launch document of the mounted spec, and runs one replica from it.

``python -m fleet.pod SPEC.json``. Values of secrets come from variables ``FLEET_SECRET_…``, which the program itself
does not see. This process stays: it passes signals on, reaps orphans, and writes the document again when the mounted
spec changes, so that a worker applies what it can without a restart. It ends with the program's exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fleet import launch
from fleet.core.desired import replica_name
from fleet.core.expand.specs import secret_variable
from fleet.core.spec import WorkerSpec, digest
from fleet.errors import FleetError, Unreachable
from fleet.replica.command import LaunchError, command, environment
from fleet.replica.crash_history import write_history
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.notice import look_now
from fleet.replica.pod_report import POD_VARIABLE, pod_index, without_secrets
from fleet.state.files import write_whole

if TYPE_CHECKING:
    from fleet.backends.kubernetes.leader import Leadership

REPORT_VARIABLE = "FLEET_REPORT_PORT"
LEASE_VARIABLE = "FLEET_LEASE"
LEASE_SECONDS = 30
"""Longer than a holder takes to notice that it cannot renew, and to end its program."""
LEASE_LOOK_SECONDS = 2.0
ANSWER_SECONDS = 4.0
END_SECONDS = 3.0
LOOK_SECONDS = 5.0
"""Between two looks at the mounted spec; the kubelet itself takes up to a minute to bring a change."""
PASSED_ON = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})


def main(arguments: list[str]) -> int:
    """Run the pod's replica; the exit code of its program."""
    if len(arguments) != 1:
        print("usage: python -m fleet.pod SPEC.json", file=sys.stderr)
        return 64
    source = Path(arguments[0])
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})  # waited for below, from the first moment
    try:
        document = document_of(source, os.environ)
        _write(document)
    except FleetError as error:
        print(f"{error.message}\n  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    try:
        guard = _guard(document)
        if guard is not None and (caught := wait_for_lead(guard, document)):
            return 128 + caught
    except FleetError as error:
        print(f"{error.message}\n  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    child = os.fork()
    if child == 0:
        _become(document)
    with served(document.fleet, lambda: {document.replica: document.record}):
        return look_after(child, source, document, guard)


def document_of(source: Path, around: Mapping[str, str]) -> LaunchDocument:
    """The launch document of this pod's replica. Raises FleetError where the spec or a secret is missing."""
    spec = _spec(source)
    missing = [name for name in sorted(spec.secret_marks()) if secret_variable(name) not in around]
    if missing:
        hint = f"the pod needs the variable {secret_variable(missing[0])}, from a Secret"
        raise FleetError(f"the value of secret {missing[0]!r} is missing", hint=hint)
    home = Path(around.get("FLEET_HOME") or "/run/fleet")
    run = home / spec.fleet / "run"
    name = replica_name(spec.group, pod_index(around.get(POD_VARIABLE) or around.get("HOSTNAME") or ""))
    return LaunchDocument(
        path=run / "specs" / f"{spec.group}.json",
        fleet=spec.fleet,
        replica=name,
        digest=digest(spec),
        spec=spec,
        secrets={secret: around[secret_variable(secret)] for secret in spec.secret_marks()},
        record=Path(around.get("FLEET_RECORD") or run / f"{spec.group}.rec"),
        starts=run / f"{spec.group}.starts",
    )


def _spec(source: Path) -> WorkerSpec:
    try:
        return WorkerSpec.from_json(json.loads(source.read_bytes()))
    except OSError as error:
        hint = "mount the ConfigMap that `fleet render --target kubernetes` makes"
        raise FleetError(f"cannot read {source}: {error.strerror}", hint=hint) from error
    except (ValueError, TypeError, KeyError) as error:
        hint = "render it with the version of fleet that is in the image"
        raise FleetError(f"{source} is not the spec of a worker: {error}", hint=hint) from error


def _write(document: LaunchDocument) -> None:
    for folder in (document.path.parent, document.record.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(document.path, document.to_bytes().decode(), mode=0o600, lasting=False)


def _become(document: LaunchDocument) -> NoReturn:
    """The program, in a process group of its own. The kubelet is who pauses between restarts, so nothing waits here."""
    try:
        os.setpgid(0, 0)
        history = launch.history_before(document, time.time())
        write_history(document.starts, replace(history, began=time.time()))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
        launch.await_outside(document)
        inherited = without_secrets(os.environ)
        environ = {**inherited, **environment(document, inherited)}
        launch.run_program(document, command(document), environ, own_exit_code=True)
    except (LaunchError, OSError) as error:
        launch.say(f"{document.replica}: {error}")
        sys.stderr.flush()
        os._exit(error.exit_code if isinstance(error, LaunchError) else 1)


# --- the process that stays


def served(
    fleet: str, find: Callable[[], Mapping[str, Path]], *, several: bool = False
) -> AbstractContextManager[object]:
    """Tell a scaler and Prometheus what the replicas do, where the pod is asked to, until the ``with`` ends.

    find: their records by name, see :class:`fleet.operate.pod_server.PodReader`.
    """
    port = os.environ.get(REPORT_VARIABLE)
    if not port:
        return nullcontext()
    from fleet.operate.pod_server import PodReader, PodServer

    try:
        return PodServer(PodReader(fleet, find, several=several), port=int(port))
    except (OSError, ValueError) as error:
        launch.say(f"nobody can ask this pod what it does, on port {port}: {error}")
        return nullcontext()


def look_after(child: int, source: Path, document: LaunchDocument, guard: Leadership | None = None) -> int:
    """Until the program has ended; its exit code. ``guard``: without its Lease the program is ended."""
    while True:
        caught = signal.sigtimedwait(PASSED_ON | {signal.SIGCHLD}, LOOK_SECONDS)
        if caught is not None and caught.si_signo != signal.SIGCHLD:
            os.kill(child, caught.si_signo)  # not reaped yet, so the pid is still its own
        code = reaped(child)
        if code is None and guard is not None and not _still_leads(guard):
            launch.say(f"{document.replica}: another pod may hold the Lease {guard.name} soon: this one ends")
            code = _ended(child)
        if code is not None:
            if guard is not None:
                guard.give_up()
            return code
        document = renewed(source, document)


def _still_leads(guard: Leadership) -> bool:
    try:
        return guard.look()
    except FleetError:
        return False


def _ended(child: int) -> int:
    """End the program, politely for a moment; its exit code."""
    os.kill(child, signal.SIGTERM)
    signal.sigtimedwait({signal.SIGCHLD}, END_SECONDS)
    if (code := reaped(child)) is None:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        code = 128 - os.waitstatus_to_exitcode(status)
    return code


def _guard(document: LaunchDocument) -> Leadership | None:
    """The Lease without which the program must not run; None for one that needs none."""
    name = os.environ.get(LEASE_VARIABLE)
    if not name:
        return None
    from fleet.backends.kubernetes.client import IN_CLUSTER, Cluster, Place
    from fleet.backends.kubernetes.jobs import TOKEN_FOLDER
    from fleet.backends.kubernetes.leader import Leadership

    try:
        namespace = (Path(TOKEN_FOLDER) / "namespace").read_text().strip()
    except OSError as error:
        raise FleetError(f"the pod has no token for the Lease {name}: {error}", hint="render it again") from error
    cluster = Cluster(Place(IN_CLUSTER, namespace), timeout_seconds=ANSWER_SECONDS)
    holder = os.environ.get(POD_VARIABLE) or document.replica
    return Leadership(cluster, name=name, fleet=document.fleet, holder=holder, seconds=LEASE_SECONDS)


def wait_for_lead(guard: Leadership, document: LaunchDocument) -> int:
    """Until this pod holds the Lease; 0, or the number of the signal that came instead."""
    said = ""
    while True:
        try:
            if guard.look():
                return 0
            now = f"waits for the Lease {guard.name}, which {guard.held_by or 'nobody'} holds"
        except Unreachable as error:
            now = f"waits for the Lease {guard.name}: {error.message}"
        if now != said:
            said = now
            launch.say(f"{document.replica}: {now}")
        caught = signal.sigtimedwait(PASSED_ON, LEASE_LOOK_SECONDS)
        if caught is not None and caught.si_signo in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            return int(caught.si_signo)


def reaped(child: int) -> int | None:
    """The exit code of the program once it has ended; orphans are reaped on the way."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None


def renewed(source: Path, document: LaunchDocument) -> LaunchDocument:
    """The document after a look at the mounted spec; written again where a running worker can apply what changed."""
    try:
        spec = _spec(source)
    except FleetError as error:
        launch.say(f"{document.replica}: the new spec is not applied: {error.message}")
        return document
    if spec == document.spec or digest(spec) != document.digest:
        return document
    renewed = replace(document, spec=spec)
    try:
        _write(renewed)
    except OSError as error:
        launch.say(f"{document.replica}: the new spec is not applied: {error.strerror}")
        return document
    look_now(renewed.record)
    return renewed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
