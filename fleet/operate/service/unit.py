"""The text of a fleet's systemd unit: PURE."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleet.errors import FleetError

HEADER = "# Written by `fleet service install`; it is overwritten by the next one."
STOP_MARGIN_SECONDS = 30
PREFIX = "fleet-"
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[\w@%+=:,./-]+")

Hardening = Literal["off", "standard", "strict"]

_SAFE_FOR_ALL = ("NoNewPrivileges=yes", "LockPersonality=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes")
"""What the systemd of an ordinary user can do as well: it needs no namespaces."""
_STANDARD = (
    *("ProtectSystem=full", "ProtectControlGroups=yes", "ProtectKernelLogs=yes", "ProtectKernelModules=yes"),
    *("ProtectKernelTunables=yes", "ProtectClock=yes", "ProtectHostname=yes"),
)
_STRICT = (
    *("ProtectHome=read-only", "PrivateTmp=yes", "PrivateDevices=yes", "CapabilityBoundingSet="),
    *("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", "RestrictNamespaces=yes"),
    *("SystemCallArchitectures=native", "SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM"),
)


@dataclass(frozen=True, slots=True)
class Service:
    """One fleet as a service.

    command: program and arguments of ``fleet run``, absolute.  folder: where it runs.  home: FLEET_HOME.
    drain_seconds: how long the fleet may need to end.  user: whose processes they are; '' for root, or for the owner
    of a user's own systemd (``of_user``).  environment_files: read by systemd before the start.  writable: folders that
    ``strict`` leaves writable besides the home.
    """

    fleet: str
    command: tuple[str, ...]
    folder: str
    home: str
    drain_seconds: float
    of_user: bool = False
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    hardening: Hardening = "standard"

    @property
    def unit(self) -> str:
        """``fleet-shop.service``."""
        return unit_name(self.fleet)

    @property
    def stop_seconds(self) -> int:
        """After which systemd kills what is left."""
        return math.ceil(self.drain_seconds) + STOP_MARGIN_SECONDS


def unit_name(fleet: str) -> str:
    """The unit of a fleet."""
    return f"{PREFIX}{fleet}.service"


def unit_text(service: Service) -> str:
    """The whole unit. Raises FleetError for a path that no unit file can hold.

    KillMode mixed: TERM goes to ``fleet run`` alone, which drains; what is left after the time limit is killed.
    OOMPolicy continue: a worker that the kernel killed is replaced, and takes no other one along. No limit on the
    start: ``fleet run`` is ready when the fleet is.
    """
    return "\n".join([HEADER, *_unit(service), "", "[Service]", *_service(service), "", *_install(service)]) + "\n"


def _unit(service: Service) -> list[str]:
    lines = ["[Unit]", f"Description=fleet {service.fleet}"]
    if not service.of_user:
        lines += ["Wants=network-online.target", "After=network-online.target"]
    return [*lines, "StartLimitIntervalSec=0"]


def _service(service: Service) -> list[str]:
    environment = {"FLEET_HOME": service.home, **dict(sorted(service.environment.items()))}
    return [
        "Type=notify",
        "NotifyAccess=main",
        *([f"User={service.user}"] if service.user else []),
        f"WorkingDirectory={_path(service.folder)}",
        *(f"Environment={_word(f'{name}={value}')}" for name, value in environment.items()),
        *(f"EnvironmentFile=-{_path(path)}" for path in service.environment_files),
        f"ExecStart={' '.join(_argument(word) for word in service.command)}",
        "ExecReload=kill -HUP $MAINPID",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=mixed",
        "TimeoutStartSec=infinity",
        f"TimeoutStopSec={service.stop_seconds}",
        "OOMPolicy=continue",
        "LimitNOFILE=65536:524288",
        "TasksMax=infinity",
        "UMask=0077",
        *_hardening(service),
    ]


def _hardening(service: Service) -> list[str]:
    if service.hardening == "off":
        return []
    lines = [*_SAFE_FOR_ALL]
    if service.of_user:
        return lines
    lines += _STANDARD
    if service.hardening == "strict":
        lines[lines.index("ProtectSystem=full")] = "ProtectSystem=strict"
        lines += [*_STRICT, *(f"ReadWritePaths={_word(path)}" for path in (service.home, *service.writable))]
    return lines


def _install(service: Service) -> list[str]:
    return ["[Install]", f"WantedBy={'default' if service.of_user else 'multi-user'}.target"]


def _checked(text: str) -> str:
    if _UNSAFE.search(text):
        raise FleetError(f"{text!r}: a unit file cannot hold it", hint="use a path without control characters")
    return text.replace("%", "%%")


def _path(text: str) -> str:
    """A whole value that systemd takes as one path: nothing but its specifiers is special."""
    return _checked(text)


def _word(text: str) -> str:
    """One word among several."""
    plain = _checked(text)
    if _PLAIN.fullmatch(plain):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _argument(text: str) -> str:
    """One word of a command line, where a dollar sign begins a variable."""
    return _word(text.replace("$", "$$"))
