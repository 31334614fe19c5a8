"""The supervisord process of one fleet: started detached, given room, ended for good."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from fleet.backends.supervisor import config
from fleet.backends.supervisor.processes import await_end, is_alive, supervisors
from fleet.backends.supervisor.rpc import SupervisorRpc
from fleet.errors import FleetError, Refused, Unreachable
from fleet.file_access import SMALL_BYTES, read_file
from fleet.replica.pod_report import POD_VARIABLE, without_secrets
from fleet.replica.process_identity import is_stopped
from fleet.state.files import write_all
from fleet.state.paths import Places

START_TIMEOUT_SECONDS = 30.0
END_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.02
_LEAST_PER_REPLICA = 3
_KEPT = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "PYTHONPATH", "FLEET_IMAGE_ANSWER_SECONDS"}
)
_KEPT_PREFIXES = ("LC_", "SSL_CERT_")


class Daemon:
    """Starts and ends a fleet's supervisord."""

    def __init__(self, places: Places, rpc: SupervisorRpc, *, python: str = sys.executable) -> None:
        self._places = places
        self._rpc = rpc
        self._python = python

    def pids(self) -> list[int]:
        """supervisord processes with this fleet's configuration: none, one, or by accident several."""
        return supervisors(self._places.supervisord_conf)

    def start(self, *, replicas: int) -> None:
        """Start it detached, in a session of its own, and wait until it answers."""
        self._configure(replicas)
        for stale in (self._places.socket, config.pidfile(self._places)):
            stale.unlink(missing_ok=True)
        self._run()
        self._await_answer()

    def widen(self, *, replicas: int) -> None:
        """Give the running daemon room for more replicas: its limit can be raised from outside."""
        self.restore_configuration(replicas=replicas)
        pid = self._rpc.pid()
        needed = config.descriptors(replicas)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return
        granted = _grant(replicas, hard)
        if granted <= soft:
            return
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (granted, max(hard, granted)))
        self._configure(replicas)

    def is_configured(self) -> bool:
        """Whether its configuration is as fleet wrote it; how many descriptors it names does not matter."""
        return _without_descriptors(self._found()) == _without_descriptors(self._text(0))

    def _found(self) -> bytes:
        """The configuration as it is; empty where there is none."""
        try:
            return read_file(self._places.supervisord_conf, limit_bytes=SMALL_BYTES, own=True)
        except OSError:
            return b""

    def restore_configuration(self, *, replicas: int) -> None:
        """Write the configuration again where somebody changed or removed it: the daemon reads it before each change.

        Raises CannotWrite.
        """
        if not self.is_configured():
            self._configure(replicas)

    def end(self) -> None:
        """Ask it to end, wait until its process is gone, and leave neither socket nor pid file."""
        pid = self._rpc.pid()
        self._rpc.shutdown()
        self._rpc.close()
        if not await_end(pid, timeout_seconds=END_TIMEOUT_SECONDS):
            message = f"supervisord ({pid}) did not end within {END_TIMEOUT_SECONDS:g} s"
            raise Unreachable(message, hint=f"see {config.daemon_log(self._places)}")
        self.remove_traces()

    def remove_traces(self) -> None:
        """Remove the socket and pid file of a daemon that is gone."""
        for trace in (self._places.socket, config.pidfile(self._places)):
            trace.unlink(missing_ok=True)

    def await_shutdown(self, *, timeout_seconds: float) -> bool:
        """Wait for a daemon that is shutting down. True when none is left."""
        return all(await_end(pid, timeout_seconds=timeout_seconds) for pid in self.pids())

    def _configure(self, replicas: int) -> None:
        text = self._text(replicas)
        if self._found() != text:
            write_all({self._places.supervisord_conf: text})

    def _text(self, replicas: int) -> bytes:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        granted, root = _grant(replicas, hard), os.geteuid() == 0
        return config.daemon_text(self._places, descriptors=granted, as_root=root, python=self._python).encode()

    def _run(self) -> None:
        """Start it; what it prints before it becomes a daemon says why it could not."""
        import subprocess  # not for commands that find it running

        command = [self._python, "-P", "-m", "supervisor.supervisord", "-c", str(self._places.supervisord_conf)]
        try:
            done = subprocess.run(
                command,
                cwd="/",
                env=daemon_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=START_TIMEOUT_SECONDS,
                check=False,
            )
        except OSError as error:
            raise FleetError(f"cannot start supervisord with {self._python}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"supervisord did not start within {START_TIMEOUT_SECONDS:g} s") from error
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip().splitlines()
            reason = next((line for line in said if line.startswith("Error")), said[-1] if said else "no output")
            raise FleetError(f"supervisord did not start: {reason}", hint="`fleet doctor` looks for what is wrong")

    def _await_answer(self) -> None:
        end = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._rpc.answers():
            if time.monotonic() > end:
                message = f"supervisord started but does not answer on {self._places.socket}"
                raise Unreachable(message, hint=f"see {config.daemon_log(self._places)}")
            time.sleep(_POLL_SECONDS)


def daemon_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the shell's environment that the daemon gets: no secrets, no virtual environment. A container has no
    shell: what is set there is meant for its programs."""
    if POD_VARIABLE in environ:
        kept = without_secrets(environ)
    else:
        kept = {name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    if "PYTHONPATH" in kept:
        parts = [str(Path(part).absolute()) for part in kept["PYTHONPATH"].split(os.pathsep) if part]
        kept["PYTHONPATH"] = os.pathsep.join(parts)
    return {**kept, "PYTHONUTF8": "1"}


def recorded_pid(places: Places) -> int | None:
    """The living process the pid file names, or None."""
    try:
        pid = int(read_file(config.pidfile(places), limit_bytes=SMALL_BYTES, own=True))
    except (OSError, ValueError):
        return None
    return pid if is_alive(pid) else None


def wake(places: Places) -> bool:
    """Let a daemon go on that somebody stopped (SIGSTOP); True when it was."""
    pid = recorded_pid(places)
    if pid is None or not is_stopped(pid) or pid not in supervisors(places.supervisord_conf):
        return False
    os.kill(pid, signal.SIGCONT)
    return True


def _without_descriptors(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if not line.startswith(b"minfds=")]


def _grant(replicas: int, hard: int) -> int:
    """How many descriptors to ask for; an ordinary user gets no more than the hard limit."""
    needed = config.descriptors(replicas)
    if os.geteuid() == 0 or hard == resource.RLIM_INFINITY or hard >= needed:
        return needed
    if hard < 64 + _LEAST_PER_REPLICA * replicas:
        message = f"{replicas} replicas need {needed} open files and this user may have {hard}"
        raise Refused(message, hint="raise the hard limit (`ulimit -Hn`, LimitNOFILE= under systemd)")
    return hard
