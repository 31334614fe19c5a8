"""Settings of this machine, read from FLEET_* environment variables: paths and limits, nothing about a fleet."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.state.paths import default_home


class Settings(BaseSettings):
    """Every setting. Unknown FLEET_* variables are ignored: workers have variables of their own with that prefix."""

    model_config = SettingsConfigDict(env_prefix="FLEET_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home, description="holds one folder per fleet, mode 0700")
    rpc_timeout_seconds: float = Field(default=30.0, gt=0, description="longest wait for one supervisord answer")
    ready_timeout_seconds: float = Field(default=300.0, gt=0, description="default of `apply --timeout`")
    max_replicas: int = Field(default=20_000, ge=1, description="most replicas of one manifest")
    no_exec: bool = Field(default=False, description="refuse to run what a manifest names: interpreters, commands")
    redis_server: str = Field(default="", description="the Redis or Valkey server binary for `broker: embedded`")


@lru_cache(maxsize=1)
def load() -> Settings:
    """The settings of this process, read once."""
    return Settings()
