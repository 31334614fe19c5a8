"""supervisord's configuration as text: PURE.

INI as supervisord reads it is hard to write safely: ``%`` expands, `` ;`` and `` #`` cut a value even inside
quotes, an include pattern is split at spaces and globbed. So nothing a person wrote gets in: names come from the
pattern of replica names, and the paths of the fleet are escaped here, or refused where no escape exists.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from fleet.core.desired import BROKER_GROUP, split_name
from fleet.core.spec import PARKED_EXIT
from fleet.errors import FleetError
from fleet.state.paths import Places, check_socket_path

STOP_MARGIN_SECONDS = 15
_PID_SUFFIX_BYTES = 8
_DESCRIPTORS_PER_REPLICA = 8
_DESCRIPTORS_OF_ITS_OWN = 256
_LEAST_DESCRIPTORS = 1024
_PROCESS_NAME = r"(?P<name>[a-z][a-z0-9-]{0,62}\.\d+)@(?P<digest>[0-9a-f]{8})"
_UNSAFE = r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff*?\[\]]|\s[;#]|%\(here\)s|^\s|\s$"


@dataclass(frozen=True, slots=True)
class Program:
    """One replica as supervisord shall run it."""

    replica: str
    digest: str
    drain_timeout_seconds: float
    stop_signal: str = "TERM"

    @property
    def process_name(self) -> str:
        """``thumbs.0@9f31c2ab``: one look at the process list tells what really runs."""
        return f"{self.replica}@{self.digest}"


def descriptors(replicas: int) -> int:
    """Open files the daemon needs: two per replica while it runs, more for a moment when it starts."""
    return max(_LEAST_DESCRIPTORS, _DESCRIPTORS_OF_ITS_OWN + _DESCRIPTORS_PER_REPLICA * replicas)


def pidfile(places: Places) -> Path:
    """Where the daemon writes its pid."""
    return places.run / "supervisord.pid"


def daemon_log(places: Places) -> Path:
    """The daemon's own log."""
    return places.log / "supervisord.log"


LOG_KEEPER = "fleet-log-keeper"
"""The program beside the replicas that keeps their logs within bounds."""


def daemon_text(places: Places, *, descriptors: int, as_root: bool, python: str) -> str:
    """``supervisord.conf``: one socket for its owner, no network, the keeper of the logs, the rest in ``conf.d``."""
    check_socket_path(places.socket, suffix_bytes=_PID_SUFFIX_BYTES)
    user = "user=root\n" if as_root else ""
    return (
        "; Written by fleet; edits are lost.\n"
        "[unix_http_server]\n"
        f"file={_value(places.socket)}\n"
        "chmod=0600\n"
        "\n"
        "[supervisord]\n"
        f"{user}"
        f"identifier=fleet-{places.fleet}\n"
        f"pidfile={_value(pidfile(places))}\n"
        f"logfile={_value(daemon_log(places))}\n"
        "logfile_maxbytes=10MB\n"
        "logfile_backups=3\n"
        "loglevel=info\n"
        f"childlogdir={_value(places.log)}\n"
        "nocleanup=true\n"
        "umask=077\n"
        f"minfds={descriptors}\n"
        "minprocs=1\n"
        "\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        "\n"
        "[rpcinterface:fleet]\n"
        "supervisor.rpcinterface_factory=fleet.backends.supervisor.image_plugin:make_interface\n"
        "\n"
        f"[program:{LOG_KEEPER}]\n"
        f"command={_word(python)} -P -m fleet.backends.supervisor.log_keeper {_word(places.log)}\n"
        "priority=1\n"
        "autorestart=true\n"
        "startsecs=0\n"
        "redirect_stderr=true\n"
        "stdout_logfile=NONE\n"
        "\n"
        "[include]\n"
        "files=conf.d/*.conf\n"
    )


def program_text(program: Program, *, places: Places, python: str) -> str:
    """One program section.

    ``stopasgroup`` false: a TERM to the children of a worker would kill running tasks.  ``startsecs`` 0 and exit 78:
    back-off and parking are the launcher's, which knows more than supervisord's counter.  ``stdout_logfile`` NONE: two
    descriptors instead of five, and the launcher opens the replica's own log.
    """
    spec = places.spec_file(program.replica)
    command = f"{_word(python)} -P -m fleet.launch {_word(spec)} {program.digest}"
    group, _ = split_name(program.replica)
    return (
        "; Written by fleet; edits are lost.\n"
        f"[program:{program.replica}]\n"
        f"command={command}\n"
        f"process_name={program.process_name}\n"
        f"priority={1 if group == BROKER_GROUP else 999}\n"
        "autostart=true\n"
        "autorestart=unexpected\n"
        f"exitcodes={PARKED_EXIT}\n"
        "startsecs=0\n"
        f"stopsignal={program.stop_signal}\n"
        f"stopwaitsecs={math.ceil(program.drain_timeout_seconds) + STOP_MARGIN_SECONDS}\n"
        "stopasgroup=false\n"
        "killasgroup=true\n"
        "redirect_stderr=true\n"
        "stdout_logfile=NONE\n"
    )


def parse_process_name(group: str, process: str) -> tuple[str, str] | None:
    """``("thumbs.0", "thumbs.0@9f31c2ab")`` -> name and digest; None for a program that is not fleet's."""
    found = re.fullmatch(_PROCESS_NAME, process)
    if found is None or found["name"] != group:
        return None
    return found["name"], found["digest"]


def check_path(path: str | Path) -> str:
    """The path as text, or FleetError where supervisord's configuration cannot hold it."""
    text = str(path)
    if bad := re.search(_UNSAFE, text):
        raise FleetError(
            f"{text!r}: supervisord's configuration cannot hold {bad.group()!r} in a path",
            hint="set FLEET_HOME (or install fleet) under a path of letters, digits and '._/@+-'",
        )
    return text


def _value(path: str | Path) -> str:
    return check_path(path).replace("%", "%%")


def _word(path: str | Path) -> str:
    """One word of a command line; quotes do not protect a comment sign, so the quoted form is checked again."""
    return check_path(shlex.quote(check_path(path))).replace("%", "%%")
