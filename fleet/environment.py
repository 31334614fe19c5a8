"""What the FLEET_* variables of this machine say, read and checked by pydantic-settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.core.text.format import shown
from fleet.errors import UsageError

PREFIX = "FLEET_"
Seconds = Annotated[FiniteFloat, Field(gt=0)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
_EXPECTED: Mapping[object, tuple[str, str]] = {
    float: ("a number of seconds above 0", "write it like 30 or 0.5"),
    int: ("a whole number above 0", "write it like 1000"),
    bool: ("yes or no", "write 1 for yes, 0 for no"),
}


class Environment(BaseSettings):
    """A field for each setting, its default left to :class:`fleet.settings.Settings`. An empty variable is not set."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Path()
    rpc_timeout_seconds: Seconds = 1.0
    ready_timeout_seconds: Seconds = 1.0
    max_replicas: Count = 1
    no_exec: bool = False
    redis_server: str = ""
    image_answer_seconds: Seconds = 1.0
    log_bytes: Count = 1
    stall_seconds: Seconds = 1.0


def given() -> dict[str, Any]:
    """Name -> value of the settings whose variables are set. Raises UsageError for the first that does not fit."""
    try:
        return Environment().model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    expected, example = _EXPECTED[Environment.model_fields[name].annotation]
    message = f"expected {expected}, got {shown(first['input'])}"
    raise UsageError(f"the environment variable {PREFIX}{name.upper()}: {message}", hint=example)
