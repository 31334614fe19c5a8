"""The door to a program: the document on its standard input, the fields in its environment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.core.text.format import counted, shown
from fleet.errors import Refused
from fleet.inputs.no_exec import refuse_code
from fleet.operate.notify.errors import NotSent

PREFIX = "FLEET_NOTIFY_"
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME")


def run(
    command: Sequence[str],
    document: Mapping[str, Any],
    *,
    fields: Mapping[str, str],
    folder: Path,
    timeout_seconds: float,
) -> None:
    """Run it, and end it with all that it started where it takes too long. Raises NotSent."""
    name = shown(command[0])
    try:
        refuse_code(f"the command {name} of a notification")
    except Refused as error:
        raise NotSent(error.message) from None
    environ = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environ |= {f"{PREFIX}{key.upper()}": value for key, value in fields.items()}
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotSent(f"cannot run {name}: {getattr(error, 'strerror', None) or type(error).__name__}") from None
    with process:
        try:
            _, complaint = process.communicate(json.dumps(document).encode(), timeout=timeout_seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise NotSent(f"{name} did not end within {timeout_seconds:g} s") from None
    if process.returncode != 0:
        how = f"exit {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
        lines = len(complaint.splitlines())
        raise NotSent(f"{name} failed: {how}; it wrote {counted(lines, 'line')} of errors")
