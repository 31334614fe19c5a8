"""The launch document, checked once a second: settings that can change in place are applied while the worker runs.

A command that resizes a replica only writes the file. So nothing is lost when that command or the worker is killed, or
both: a running worker applies what the file says, and one that starts reads it anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import FleetError
from fleet.worker.options import read_document, with_queues
from pools.errors import PoolError

if TYPE_CHECKING:
    from fleet.worker.loop.live_settings import LiveSettings

log = logging.getLogger("fleet.worker")

_Stamp = tuple[int, int, int]


class DocumentWatch:
    """The document of one worker. When it is written again, it replaces what was changed by hand in between.

    queues: what a document without queues stands for.
    """

    def __init__(self, path: Path, digest: str, settings: LiveSettings, *, queues: Sequence[str] = ()) -> None:
        self._path = path
        self._digest = digest
        self._settings = settings
        self._queues = tuple(queues)
        self._stamp: _Stamp | None = None

    def look(self, now: float) -> None:  # noqa: ARG002
        """Once a second: costs one ``stat`` unless the file was written since the last look. Logs each problem once."""
        stamp = self._read_stamp()
        if stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._adopt()
        except (FleetError, PoolError, ValueError) as error:
            log.error("the new settings are not applied: %s", error)

    def _adopt(self) -> None:
        options = read_document(self._path)
        if options.digest == self._digest:
            self._settings.adopt(with_queues(options.spec, self._queues))
        else:
            log.warning(
                "%s holds digest %s, not %s: that needs a restart, so it is ignored",
                self._path,
                options.digest,
                self._digest,
            )

    def _read_stamp(self) -> _Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
