"""Runs a verb of fleet as a process of its own: it takes the lock itself, and goes on when the dashboard ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from fleet.errors import FleetError
from fleet.state.audit import BEHALF_VARIABLE

MOST_AT_ONCE = 4
KEPT = 100
ASKING_SECONDS = 120.0
"""The longest wait for a verb that only looks."""
_MOST_SAID_BYTES = 64 << 10
_MOST_BYTES = 16 << 20


class Busy(FleetError):
    """So many commands run already."""


class VerbRun:
    """One run. Its output goes to files that have no name: a pipe would end it when the dashboard ends.

    code None: it runs.  result: the document it printed, None without one.
    """

    def __init__(self, fleet: str, words: Sequence[str], *, by: str, home: Path) -> None:
        """Start it. Raises FleetError."""
        self.id = secrets.token_urlsafe(9)
        self.fleet, self.words, self.by = fleet, tuple(words), by
        self.began_at = time.time()
        self.ended_at: float | None = None
        self.code: int | None = None
        self.result: Any = None
        self.ended = asyncio.Event()
        self._said = ""
        self._loop = asyncio.get_running_loop()
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        env = {**os.environ, "FLEET_HOME": str(home), BEHALF_VARIABLE: by, "NO_COLOR": "1"}
        command = [sys.executable, "-m", "fleet", *words]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err, env=env, start_new_session=True
            )
        except OSError as error:
            self._close()
            raise FleetError(f"cannot run `fleet {words[0]}`: {error.strerror or error}") from error
        threading.Thread(target=self._wait, name=f"verb-{words[0]}", daemon=True).start()

    def document(self) -> dict[str, Any]:
        """As pages have it."""
        return {
            "id": self.id,
            "fleet": self.fleet,
            "by": self.by,
            "command": "fleet " + " ".join(self.words),
            "beganAt": self.began_at,
            "endedAt": self.ended_at,
            "said": self.said.splitlines(),
            "code": self.code,
            "result": self.result,
        }

    @property
    def said(self) -> str:
        """The end of what it wrote to stderr so far."""
        return self._said if self.code is not None else _tail(self._err)

    def kill(self) -> None:
        """End one that only looks."""
        self._process.kill()

    def _wait(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the dashboard has ended meanwhile
            self._loop.call_soon_threadsafe(self._end, code)

    def _end(self, code: int) -> None:
        out = os.pread(self._out.fileno(), _MOST_BYTES, 0)
        self._said = _tail(self._err)
        try:
            self.result = json.loads(out) if out.strip() else None
        except ValueError:
            self._said += out[:_MOST_SAID_BYTES].decode(errors="replace")
        self._close()
        self.code, self.ended_at = code, time.time()
        self.ended.set()

    def _close(self) -> None:
        self._out.close()
        self._err.close()


def _tail(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), _MOST_SAID_BYTES, max(0, size - _MOST_SAID_BYTES)).decode(errors="replace")


class VerbRuns:
    """Starts verbs and keeps what became of them. For one event loop."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._runs: dict[str, VerbRun] = {}

    def get(self, run_id: str) -> VerbRun | None:
        """One of the last hundred."""
        return self._runs.get(run_id)

    def begin(self, fleet: str, words: Sequence[str], *, by: str) -> VerbRun:
        """Start a verb. Raises Busy, and FleetError where it cannot be started."""
        if sum(one.code is None for one in self._runs.values()) >= MOST_AT_ONCE:
            raise Busy(f"{MOST_AT_ONCE} commands run already", hint="try again when one of them is done")
        run = VerbRun(fleet, words, by=by, home=self._home)
        self._runs[run.id] = run
        over = [one.id for one in self._runs.values() if one.code is not None]
        for old in over[: max(0, len(self._runs) - KEPT)]:
            del self._runs[old]
        return run

    async def ask(self, fleet: str, words: Sequence[str], *, by: str) -> VerbRun:
        """Run a verb that only looks, to its end. Raises Busy, and FleetError for one that takes too long."""
        run = self.begin(fleet, words, by=by)
        try:
            await asyncio.wait_for(run.ended.wait(), ASKING_SECONDS)
        except TimeoutError:
            run.kill()
            raise FleetError(f"`fleet {words[0]}` did not answer within {ASKING_SECONDS:g} s") from None
        return run
