"""From a manifest to the service of its fleet."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.backends.supervisor.config import STOP_MARGIN_SECONDS
from fleet.core.desired import Desired
from fleet.errors import UsageError
from fleet.operate.service.unit import Hardening, Service
from fleet.state.files import STDIN
from fleet.state.revisions import Origin

_KEPT = ("PATH", "LANG", "TZ", "PYTHONPATH", "FLEET_REDIS_SERVER", "FLEET_RPC_TIMEOUT_SECONDS")
"""Of the environment of who installs it. Anything else would be a surprise after the next boot, and may be secret."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What a person chooses. ``run_flags``: more words for ``fleet run``."""

    of_user: bool = False
    user: str = ""
    environment_files: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    hardening: Hardening = "standard"
    run_flags: tuple[str, ...] = ()


def describe(
    desired: Desired,
    origin: Origin,
    *,
    home: str,
    options: ServiceOptions,
    environ: Mapping[str, str] = os.environ,
) -> Service:
    """The service that runs this fleet from the files it came from. Raises UsageError where it came from none."""
    return Service(
        fleet=desired.fleet,
        command=_command(origin.sources, options.run_flags),
        folder=origin.base,
        home=home,
        drain_seconds=drain_seconds(desired),
        of_user=options.of_user,
        user=options.user,
        environment={name: environ[name] for name in _KEPT if name in environ},
        environment_files=options.environment_files,
        writable=options.writable,
        hardening=options.hardening,
    )


def drain_seconds(desired: Desired) -> float:
    """How long the whole fleet may take to go: its workers side by side, then its own programs."""
    slowest: dict[bool, float] = {}
    for group in desired.groups.values():
        needed = group.spec.drain_timeout_seconds + STOP_MARGIN_SECONDS
        slowest[group.system] = max(slowest.get(group.system, 0.0), needed)
    return sum(slowest.values())


def _command(sources: Sequence[str], flags: Sequence[str]) -> tuple[str, ...]:
    if not sources or STDIN in sources:
        hint = "name them: fleet service install fleet.yaml"
        raise UsageError("a service needs the files of its manifest", hint=hint)
    return (sys.executable, "-P", "-m", "fleet", "run", *sources, "--keep-going", *flags)
