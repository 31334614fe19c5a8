"""Settings of this machine, read from FLEET_* environment variables: paths and limits, nothing about a fleet.

Nearly every command reads them, so nothing heavy is imported for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.core.text.format import shown
from fleet.errors import UsageError
from fleet.replica.log_rotation import USUAL_BYTES
from fleet.state.paths import default_home

PREFIX = "FLEET_"
_WORDS = {
    "": False,
    **dict.fromkeys(("0", "false", "no", "off"), False),
    **dict.fromkeys(("1", "true", "yes", "on"), True),
}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError("expected a number of seconds above 0", hint="write it like 30 or 0.5")
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text)):
        raise UsageError("expected a whole number above 0", hint="write it like 1000")
    return int(text)


def _truth(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise UsageError("expected yes or no", hint="write 1 for yes, 0 for no")
    return _WORDS[text.lower()]


def _by(read: Callable[[str], object], description: str) -> dict[str, Any]:
    """Of a field: what makes its value of a variable's text, raising UsageError, and what it is for."""
    return {"read": read, "description": description}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting. Other FLEET_* variables are ignored: workers have variables of their own with that prefix."""

    home: Path = field(default_factory=default_home, metadata=_by(Path, "holds one folder per fleet, mode 0700"))
    rpc_timeout_seconds: float = field(default=30.0, metadata=_by(_seconds, "longest wait for one supervisord answer"))
    ready_timeout_seconds: float = field(default=300.0, metadata=_by(_seconds, "default of `apply --timeout`"))
    max_replicas: int = field(default=20_000, metadata=_by(_count, "most replicas of one manifest"))
    no_exec: bool = field(
        default=False, metadata=_by(_truth, "refuse to run what a manifest names: interpreters, commands")
    )
    redis_server: str = field(default="", metadata=_by(str, "the Redis or Valkey server binary for `broker: embedded`"))
    image_answer_seconds: float = field(
        default=0.25, metadata=_by(_seconds, "longest wait for the image when a worker starts; read by `apply`")
    )
    log_bytes: int = field(default=USUAL_BYTES, metadata=_by(_count, "size at which the log of a replica is cut"))
    stall_seconds: float = field(
        default=30.0, metadata=_by(_seconds, "`fleet worker`: when no task has come for so long, it connects again")
    )


def read(environ: Mapping[str, str]) -> Settings:
    """The settings in these variables. Raises UsageError for the first that does not hold what it must."""
    given = {}
    for one in fields(Settings):
        variable = PREFIX + one.name.upper()
        if variable in environ:
            try:
                given[one.name] = one.metadata["read"](environ[variable])
            except UsageError as error:
                message = f"{error.message}, got {shown(environ[variable])}"
                raise UsageError(f"the environment variable {variable}: {message}", hint=error.hint) from None
    return Settings(**given)


@lru_cache(maxsize=1)
def load() -> Settings:
    """The settings of this process, read once."""
    return read(os.environ)
