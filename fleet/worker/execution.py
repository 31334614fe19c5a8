"""What runs in a slot: the module-level functions that a pool calls, in a child, a thread or the main thread."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from fleet.broker.finished_tags import FinishedTags
from fleet.worker import logging_setup
from fleet.worker.apps.base import Application
from fleet.worker.apps.load import load
from fleet.worker.logging_setup import LogStyle, apply_level
from fleet.worker.os_signals import answer_bare
from fleet.worker.task.call import Call, EncodedResult, Ending, Outcome

log = logging.getLogger("fleet.worker")

_bound: Application | None = None
_finished: FinishedTags | None = None


def bind(application: Application) -> None:
    """Name the app of this process. Forked children inherit it."""
    global _bound
    _bound = application


def bound() -> Application:
    """The app of this process."""
    if _bound is None:
        raise RuntimeError("no app is bound in this process: prepare() was not called")
    return _bound


def preload(path: str, replica: str, *, level: str, style: LogStyle) -> None:
    """Once in a process that inherited nothing, before its slots or itself are prepared: set up log and app."""
    logging_setup.set_up(replica, level=level, style=style)
    faulthandler.enable()
    application = load(path)
    application.import_tasks()
    bind(application)


def prepare(path: str, node: str, finished_path: Path | None = None) -> None:
    """Initializer of a slot's process. A spawned one inherits nothing, so it imports the app itself."""
    global _finished
    _finished = FinishedTags(finished_path) if finished_path is not None else None
    answer_bare()
    if _bound is None:
        bind(load(path))
    bound().prepare_process(node)


def finish() -> None:
    """Finalizer of a slot's process."""
    bound().finish_process()


def perform(call: Call) -> Outcome:
    """Run one task."""
    apply_level()
    pid = os.getpid()
    try:
        outcome = bound().run(call)
    finally:
        if os.getpid() != pid:
            _leave_fork(call)
    if _finished is not None and call.tag and outcome.state == "success":
        _finished.note(call.tag, outcome.unstored.packed() if outcome.unstored is not None else b"")
    return outcome


async def perform_async(call: Call) -> Outcome:
    """Run one task on the loop of the pool."""
    pid = os.getpid()
    try:
        return await bound().run_async(call)
    finally:
        if os.getpid() != pid:
            _leave_fork(call)


def _leave_fork(call: Call) -> NoReturn:
    """A child that a task has forked has come back from the task: it must not become a second worker."""
    log.warning("Task %s[%s] has forked, and the child came back from it: that process ends here", call.name, call.id)
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(0)


def record_end(call: Call, ending: Ending, detail: str, limit_seconds: float | None = None) -> None:
    """Record the end of a task that could not report it. In a slot, not in the loop: a backend may be slow."""
    bound().record_end(call, ending, detail, limit_seconds=limit_seconds)


def store_result(result: EncodedResult) -> None:
    """Store a result that the worker's process could not store. In a slot, as above."""
    bound().store_result(result)
