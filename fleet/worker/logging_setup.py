"""The log of a worker: one line per event on stderr, as text for people or as JSON for collectors."""

from __future__ import annotations

import json
import logging
import mmap
import os
import sys
import time
from dataclasses import dataclass
from typing import TextIO

from fleet.core.text.format import one_line, printable
from fleet.worker.journal import Journal

_STEP = 10  # between two of the levels that logging names

_said: mmap.mmap | None = None
"""One byte that this process and its forked children share: the level, in steps."""
_heard = 0


@dataclass(frozen=True, slots=True)
class LogStyle:
    """How lines look in the log, and where they go. fleet: its name, for the journal."""

    format: str = "text"
    to: str = "file"
    fleet: str = ""


TEXT = LogStyle()


def set_up(replica: str, *, level: str = "INFO", style: LogStyle = TEXT) -> None:
    """Configure the root logger of this process. Forked children inherit it."""
    handler: logging.Handler = logging.StreamHandler(_own_stderr())
    handler.setFormatter(JsonLines(replica) if style.format == "json" else TextLines(replica))
    if style.to != "file":
        handler = Journal(fleet=style.fleet, replica=replica, otherwise=handler, also=style.to == "both")
    handler.addFilter(OfOthers())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    global _said, _heard
    _said = mmap.mmap(-1, 1)
    set_level(level)
    _heard = _said[0]


def _own_stderr() -> TextIO:
    """Where stderr goes, under a descriptor of its own: tasks may close ``sys.stderr``, and descriptor 2 with it."""
    try:
        return open(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return sys.stderr


def set_level(level: str) -> None:
    """Change the level: here at once, in children that were forked before when they run their next task."""
    root = logging.getLogger()
    if logging.getLevelName(root.level) != level:  # to set it writes to every logger, whose memory workers may share
        root.setLevel(level)
    if _said is not None:
        _said[0] = logging.getLogger().level // _STEP


def apply_level() -> None:
    """For a slot, before a task: follow a level that the worker has changed. Usually one comparison."""
    global _heard
    if _said is not None and _said[0] != _heard:
        _heard = _said[0]
        logging.getLogger().setLevel(_heard * _STEP)


class OfOthers(logging.Filter):
    """What fleet says holds words of others: names of tasks and queues, errors, commands. They forge no line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape control characters in the message, and cut a long one."""
        if record.name == "fleet" or record.name.startswith("fleet."):
            shown = printable if getattr(record, "has_lines", False) else one_line
            record.msg, record.args = shown(record.getMessage()), None
        return True


class TextLines(logging.Formatter):
    """``2026-11-21 05:00:00,123 INFO thumbs.0[4242] message``."""

    def __init__(self, replica: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {replica.replace('%', '%%')}[%(process)d] %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """With its zone, as ``2026-11-28 05:04:00,120+0100``: workers of one fleet may have several."""
        when = time.localtime(record.created)
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', when)},{int(record.msecs):03d}{time.strftime('%z', when)}"


class JsonLines(logging.Formatter):
    """One JSON object per line; the time in UTC."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "replica": self._replica,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
