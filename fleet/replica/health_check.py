"""One health check of a replica: a command that ends with 0, or a request that is answered. Stdlib only.

``python -m fleet.replica.health_check DOCUMENT live|ready`` makes it for a probe of a pod: exit 0 where it passes. A
worker must be well by its own record, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fleet.core.health import Probe, judge
from fleet.core.spec import FLEETS_ACCOUNT, HealthCheckSpec, WorkerSpec
from fleet.core.text.format import one_line
from fleet.replica.account import groups_of
from fleet.replica.command import LaunchError, environment
from fleet.replica.launch_document import DocumentError, LaunchDocument, read
from fleet.replica.process_identity import lives
from fleet.replica.record import read as read_record

_KEPT_BYTES = 4096
_LONGEST_REASON = 200
_LOOK_SECONDS = 0.1
_KILL_SECONDS = 5.0
_PASSES = range(200, 400)
_STATUS_LINE = re.compile(rb"HTTP/[0-9.]{1,9} +([0-9]{3})(?![0-9])")


class HealthChecker:
    """Makes the checks of one replica, one at a time, each within its time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def why_unhealthy(self, document: LaunchDocument, *, pid: int) -> str:
        """Why the check fails, '' where it passes. ``pid``: of the replica's process."""
        check = document.spec.health_check
        if check.port:
            return why_unanswered(check)
        if self._process is not None and self._process.poll() is None:
            return "an earlier check cannot be killed"
        try:
            environ = {**environment(document, os.environ), "FLEET_PID": str(pid)}
        except LaunchError as error:
            return str(error)
        return self._run(document.spec, document.run_folder.parent, environ)

    def end(self) -> None:
        """Kill the check that runs now, with all that it has started."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _run(self, spec: WorkerSpec, folder: Path, environ: Mapping[str, str]) -> str:
        check = spec.health_check
        try:
            self._process = subprocess.Popen(
                check.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=spec.workdir or folder,
                env=environ,
                start_new_session=True,
                **_account(spec),
            )
        except (OSError, ValueError) as error:
            return f"cannot run {check.command[0]!r}: {getattr(error, 'strerror', None) or error}"
        with self._process as process:
            said = b"".join(_output(process, seconds=check.timeout_seconds))
            code = process.poll()
            self.end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KILL_SECONDS)
            if process.returncode is None:  # it is in the kernel's hands: not waited for here, and not forgotten
                return f"no end within {check.timeout_seconds:g} s, and it cannot be killed"
        if code is None:
            return _with_output(f"no end within {check.timeout_seconds:g} s", said)
        return _with_output(f"exit code {code}" if code > 0 else f"ended by signal {-code}", said) if code else ""


def _account(spec: WorkerSpec) -> dict[str, Any]:
    account = spec.account
    if account == FLEETS_ACCOUNT:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": groups_of(account)}


def _output(process: subprocess.Popen[bytes], *, seconds: float) -> Iterator[bytes]:
    """The last of what it writes, until it has ended or its time is over. A child that keeps the pipe open is not
    waited for."""
    assert process.stdout is not None
    end, said, pipe = time.monotonic() + seconds, b"", process.stdout.fileno()
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], [], [], min(left, _LOOK_SECONDS))[0]:
            data = os.read(pipe, 1 << 16)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
                break
            said = (said + data)[-_KEPT_BYTES:]
        elif process.poll() is not None:
            break
    yield said


def _with_output(reason: str, said: bytes) -> str:
    """With the last line that it wrote."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return f"{reason}: {one_line(lines[-1])}"[:_LONGEST_REASON] if lines else reason


def why_unanswered(check: HealthCheckSpec) -> str:
    """Why the request is not answered well, '' where it is: its status counts, and nothing after it is read."""
    end = time.monotonic() + check.timeout_seconds
    try:
        with socket.create_connection(("127.0.0.1", check.port), timeout=check.timeout_seconds) as connection:
            lines = (
                f"GET {check.path} HTTP/1.1",
                f"Host: {check.host}",
                "User-Agent: fleet",
                "Connection: close",
                "",
                "",
            )
            connection.sendall("\r\n".join(lines).encode())
            line = _first_line(connection, end)
    except TimeoutError:
        return f"no answer within {check.timeout_seconds:g} s"
    except OSError as error:
        return f"port {check.port}: {error.strerror or error}"
    found = _STATUS_LINE.match(line)
    if found is None:
        return f"port {check.port} does not speak HTTP" if line else "it closed the connection"
    return "" if int(found[1]) in _PASSES else f"status {int(found[1])}"


def _first_line(connection: socket.socket, end: float) -> bytes:
    said = b""
    while b"\n" not in said and len(said) < _KEPT_BYTES:
        if (left := end - time.monotonic()) <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data = connection.recv(_KEPT_BYTES)
        if not data:
            break
        said += data
    return said.partition(b"\n")[0]


def main(argv: list[str]) -> int:
    """The check of the replica whose launch document is named; prints why it fails."""
    path, probe = Path(argv[0]), Probe(argv[1])
    try:
        document = read(path)
    except DocumentError as error:
        print(error)
        return 1
    record = read_record(document.record)
    living = record is not None and lives(record.pid, record.started_ticks)
    health = judge(record, lives=living, now=time.time())
    if document.spec.kind != "command" and not health.passes(probe):
        print(f"{health.condition}: {health.reason}")
        return 1
    reason = HealthChecker().why_unhealthy(document, pid=record.pid if record is not None else os.getpid())
    if reason:
        print(reason)
    return 1 if reason else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
