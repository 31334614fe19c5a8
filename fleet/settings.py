"""Settings of this machine, read from FLEET_* environment variables: paths and limits, nothing about a fleet."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.replica.log_rotation import USUAL_BYTES
from fleet.state.paths import default_home, home_of


def _for(description: str) -> dict[str, Any]:
    return {"description": description}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting. Other FLEET_* variables are ignored: workers have variables of their own with that prefix."""

    home: Path = field(default_factory=default_home, metadata=_for("holds one folder per fleet, mode 0700"))
    rpc_timeout_seconds: float = field(default=30.0, metadata=_for("longest wait for one supervisord answer"))
    ready_timeout_seconds: float = field(default=300.0, metadata=_for("default of `apply --timeout`"))
    max_replicas: int = field(default=20_000, metadata=_for("most replicas of one manifest"))
    no_exec: bool = field(default=False, metadata=_for("refuse to run what a manifest names: interpreters, commands"))
    redis_server: str = field(default="", metadata=_for("the Redis or Valkey server binary for `broker: embedded`"))
    image_answer_seconds: float = field(
        default=0.25, metadata=_for("longest wait for the image when a worker starts; read by `apply`")
    )
    log_bytes: int = field(default=USUAL_BYTES, metadata=_for("size at which the log of a replica is cut"))
    stall_seconds: float = field(
        default=30.0, metadata=_for("`fleet worker`: when no task has come for so long, it connects again")
    )


_CHECKED = frozenset(f"FLEET_{one.name.upper()}" for one in fields(Settings)) - {"FLEET_HOME"}


@lru_cache(maxsize=1)
def load() -> Settings:
    """The settings of this process, read once. Raises UsageError for the first that does not hold what it must."""
    if _CHECKED.isdisjoint(name.upper() for name in os.environ):
        return Settings(home=home_of(os.environ))
    from fleet.environment import given  # a fifth of `status`, which mostly has nothing to check

    return Settings(**given())
