"""Whether code that a manifest names may run: a CI job that plans other people's manifests says no."""

from __future__ import annotations

import os

from fleet.errors import Refused

VARIABLE = "FLEET_NO_EXEC"


def refuse_code(what: str) -> None:
    """Raise Refused where ``--no-exec`` or FLEET_NO_EXEC forbids to run what a manifest names."""
    if os.environ.get(VARIABLE, "").lower() not in ("", "0", "false", "no", "off"):
        hint = "leave --no-exec and FLEET_NO_EXEC out for a manifest that you trust; `fleet validate` runs nothing"
        raise Refused(f"this would run {what}, which --no-exec forbids", hint=hint)
