"""One worker process, put together: app, pool, channel, record, loop; and taken apart again in the right order."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fleet import settings
from fleet.broker.channels import open_channel
from fleet.broker.channels.base import Channel, Kept
from fleet.broker.connection import is_redis
from fleet.core.spec import WorkerSpec
from fleet.errors import AppUnusable, FleetError
from fleet.file_access import make_folders
from fleet.replica import record as records
from fleet.replica.command import with_names
from fleet.replica.crash_history import read_history
from fleet.replica.memory_merging import ask_for_merging
from fleet.replica.record import Record
from fleet.worker import execution, logging_setup, stack_dump
from fleet.worker.apps.base import Application, Remote
from fleet.worker.apps.load import load
from fleet.worker.control.commands import Commands
from fleet.worker.control.control import Control
from fleet.worker.control.events import Events
from fleet.worker.control.in_loop import ControlInLoop
from fleet.worker.control.inspection import Inspection
from fleet.worker.control.run_in_loop import LoopCalls
from fleet.worker.lifecycle import EXIT_FAILED
from fleet.worker.logging_setup import LogStyle
from fleet.worker.loop import forced_exit
from fleet.worker.loop.consumer import Consumer
from fleet.worker.loop.counting import TaskCounting
from fleet.worker.loop.document_watch import DocumentWatch
from fleet.worker.loop.housekeeping import HousekeepingThread
from fleet.worker.loop.parts import LoopParts
from fleet.worker.loop.stall_watchdog import StallWatchdog
from fleet.worker.loop.stop_watch import keep_deadline
from fleet.worker.loop.thread_watch import ThreadWatch
from fleet.worker.options import WorkerOptions, with_queues
from fleet.worker.os_signals import SignalBox
from fleet.worker.process_state import ProcessState
from fleet.worker.task.call import ChildLimits
from fleet.worker.tracing import slot as traced
from fleet.worker.tracing.choice import tracing_of
from pools import BasePool, EventLoop, pool_class
from pools.errors import PoolError, PoolUnavailable
from pools.freeze import freeze_for_forks
from pools.patching import GREEN

log = logging.getLogger("fleet.worker")


def _log_style(spec: WorkerSpec) -> LogStyle:
    return LogStyle(spec.log_format, spec.log_to, spec.fleet)


def run(options: WorkerOptions) -> int:
    """Run a worker to its end; its exit code. Sets up logging; errors that end it are logged, not raised."""
    spec = options.spec
    logging_setup.set_up(options.replica, level=spec.log_level, style=_log_style(spec))
    faulthandler.enable()
    box = SignalBox()
    box.install()
    stack_dump.answer()
    if spec.merge_memory and (why := ask_for_merging()):
        log.warning("mergeMemory: %s", why)
    try:
        application = load(spec.app)
        options = with_defaults_of(application, options)
        _prepare(application, options)
        return Worker(options, application, box).run()
    except (FleetError, PoolError) as error:
        if error.__cause__ is not None:
            text = "".join(traceback.format_exception(error.__cause__))
            log.error("%s", text.rstrip())
        log.error("cannot start: %s%s", error, f" (hint: {error.hint})" if error.hint else "")
        if isinstance(error, AppUnusable | PoolUnavailable) and options.record_path is not None:
            say_cannot_start(options, _shortest(error))
        return EXIT_FAILED


def _shortest(error: FleetError | PoolError) -> str:
    """The cause where there is one: a record has room for a line."""
    cause = error.__cause__
    return str(error) if cause is None else f"{type(cause).__name__}: {cause}"


def say_cannot_start(options: WorkerOptions, reason: str) -> None:
    """In the record, which the launcher reads before the next try."""
    record = _open_record(options, slots=options.spec.pool.concurrency)
    record.cannot_start = True
    record.become("starting", reason)
    record.close()


def with_defaults_of(application: Application, options: WorkerOptions) -> WorkerOptions:
    """The broker and the queues are the app's own where nobody named others. Raises FleetError without a broker."""
    spec = options.spec
    url = options.broker_url or application.default_broker_url()
    if not url:
        raise FleetError(f"no broker is named, neither for this worker nor by the app {spec.app!r}", hint=_NO_BROKER)
    return replace(options, broker_url=url, spec=with_queues(spec, application.default_queues()))


_NO_BROKER = "name one: `broker:` in the manifest, --broker, or the app's own setting"


def _prepare(application: Application, options: WorkerOptions) -> None:
    try:
        application.prepare_worker(
            node_name(options),
            pool=options.spec.pool.type,
            concurrency=options.spec.pool.concurrency,
            broker_url=options.broker_url,
        )
    except Exception as error:
        raise FleetError(f"the app {options.spec.app!r} cannot be prepared: {error!r}", hint=_ITS_OWN) from error
    execution.bind(application)


_ITS_OWN = "the traceback above is the app's own: its imports, its settings, or a receiver of worker_init"


_ITS_OWN_INIT = "the traceback above is the app's own: a receiver of worker_process_init"
MOST_FAILED_STARTS = 5
"""So often each slot of a prefork pool may fail to start, one time after the other, before the process gives up."""


def node_name(options: WorkerOptions) -> str:
    """The worker's name on the broker: two fleets on one host may both have a ``thumbs.0``."""
    if options.spec.node:
        name = with_names(options.spec.node, fleet=options.spec.fleet, replica=options.replica)
        return name.replace("%h", socket.gethostname()) if "@" in name else f"{name}@{socket.gethostname()}"
    return f"{options.spec.fleet}.{options.replica}@{socket.gethostname()}"


def _finished_path(options: WorkerOptions) -> Path | None:
    """Where processes of slots note what they have finished; None where there is no need, or no use."""
    is_used = options.spec.pool.type == "prefork" and is_redis(options.broker_url)
    return options.record_path.with_suffix(".finished") if is_used and options.record_path is not None else None


class Worker:
    """The parts of one worker."""

    def __init__(self, options: WorkerOptions, application: Application, box: SignalBox) -> None:
        self.options = options
        self.application = application
        self.node = node_name(options)
        self._tracing = tracing_of(options, app_kind=application.kind)
        self.loop = EventLoop()
        self.pool = self._make_pool()
        self._ran_before = _ran_before(options)
        self.record = _open_record(options, slots=self.pool.limit)
        self.channel = self._make_channel()
        self.box = box
        self.consumer = Consumer(
            options, application, self.pool, self.channel, record=self.record, box=box, loop=self.loop
        )
        self.parts = self.consumer.parts
        self.parts.admission.tagged = _finished_path(options) is not None
        self.housekeeping: HousekeepingThread | None = None
        self._counting = self._make_counting()
        self._add_to_the_loop()
        if self._tracing is not None:
            self.parts.trace(self._tracing)
        self.control = self._make_control()

    def _add_to_the_loop(self) -> None:
        """What the loop does for this process beyond feeding the pool."""
        parts, every_second, document = self.parts, self.consumer.every_second, self.options.document_path
        parts.settings.set_rate_limits(self.application.rate_limits())
        parts.listeners.append(self.application.listener())
        if document is not None:
            queues = self.application.default_queues()
            every_second.append(DocumentWatch(document, self.options.digest, parts.settings, queues=queues).look)
        watchdog = StallWatchdog(
            parts.fetching,
            self.channel,
            running=parts.inflight.running.keys(),
            rebuild=parts.connection.rebuild,
            replace=self.consumer.replace_soon,
            patience_seconds=settings.load().stall_seconds,
        )
        self.consumer.pauses.looks.append(lambda: watchdog.due_at)
        every_second += [watchdog, ThreadWatch(self._lost_threads, replace=self.consumer.replace_soon)]

    def _make_counting(self) -> TaskCounting | None:
        """Counters by task beside the record; a worker that cannot keep them works without."""
        path = self.options.record_path
        if path is None or not self.options.spec.task_counters:
            return None
        try:
            counting = TaskCounting(path)
        except OSError as error:
            log.warning("tasks are not counted by name: %s: %s", error.filename or path, error.strerror or error)
            return None
        self.parts.starting.on_start = counting.on_start
        self.parts.completion.on_end = counting.on_end
        self.parts.connection.on_again = counting.counters.reconnected
        self.parts.forced_exit.on_exit.append(counting.counters.publish)
        self.consumer.every_second.append(counting.every_second)
        return counting

    def _lost_threads(self) -> Sequence[str]:
        ended = self.housekeeping is not None and not self.housekeeping.is_alive()
        return [*self.pool.lost_threads, *(["housekeeping"] if ended else [])]

    def run(self) -> int:
        """Start, feed, stop."""
        _set_title(self.options)
        self.pool.register_with_event_loop(self.loop)
        if self.pool.traits.own_processes:
            freeze_for_forks()
        else:
            gc.collect()
            gc.freeze()  # objects made so far stay
        self._start_pool()
        self._start_answering()
        if self.options.spec.pool.type in GREEN:
            keep_deadline(self.consumer, self.pool, box_fd=self.box.fileno())
        self._watch_process_state()
        try:
            code = self.consumer.run()
        except BaseException:
            self._close(crashed=True)
            raise
        self._close()
        return code

    def _start_pool(self) -> None:
        try:
            self.pool.start()
        except PoolError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self.record.become("failed", why)
            raise FleetError(f"no slot can start: {why}", hint=_ITS_OWN_INIT) from error

    def _watch_process_state(self) -> None:
        """Tasks that share this process may leave it changed."""
        if self.pool.traits.own_processes:
            return
        inline = self.parts.submission.is_inline
        state = ProcessState(self.box.descriptors(), shared=not inline)

        def check(lost: int | None) -> None:
            if lost is not None:
                text = f"a task has closed descriptor {lost}, which belongs to its worker: this process is replaced"
                self.parts.forced_exit.without_descriptors(text)

        def look(now: float = 0.0) -> None:  # noqa: ARG001
            check(state.lost_descriptor)
            state.put_back()

        if inline:
            self.parts.submission.after_inline = look
            self.parts.submission.after_quick = lambda: check(state.look_briefly())
            return
        self.parts.completion.before_settling = look  # a signal to stop may come before the next second
        self.consumer.every_second.append(look)

    def _make_pool(self) -> BasePool:
        spec = self.options.spec.pool
        of_app = self.application.child_limits() if spec.type == "prefork" else ChildLimits()
        options: dict[str, Any] = {
            "initializer": execution.prepare,
            "initargs": (self.options.spec.app, self.node, _finished_path(self.options)),
            "finalizer": execution.finish,
            "max_tasks_per_child": spec.max_tasks_per_child or of_app.tasks,
            "max_memory_per_child_bytes": spec.max_memory_per_child_bytes or of_app.memory_bytes,
            "max_age_per_child_seconds": spec.max_age_per_child_seconds,
            "start_method": spec.start_method,
        }
        if self._tracing is not None:
            options |= traced.pool_options(options["initargs"], self._tracing)
        if spec.type == "solo":
            options |= {"on_hard_timeout": self._on_hard_limit, "on_terminate_job": self._on_terminate_job}
        elif spec.type == "prefork":
            options |= {"private_fds": self._private_fds, "title": f"fleet: {self.options.replica}"}
            options |= {"preload": self._preload(), "on_lifecycle": self._on_prefork_lifecycle}
        elif spec.type in GREEN:
            options |= self._green_options(spec.type)
        kind = pool_class(spec.class_path or spec.type)
        if hasattr(kind, "foreign_class"):  # written for Celery, which passes these to its pools
            options |= {"app": getattr(self.application, "app", None), "hostname": self.node}
        return kind(spec.concurrency, **options)

    def _green_options(self, kind: str) -> dict[str, Any]:
        import psutil  # noqa: F401  (for `on_blocked`: a blocked process cannot import any more)

        options: dict[str, Any] = {"on_blocked": self._on_blocked}
        return options if kind == "gevent" else {**options, "on_lifecycle": self.application.on_pool_lifecycle}

    def _preload(self) -> Callable[[], None]:
        spec, replica = self.options.spec, self.options.replica
        return partial(execution.preload, spec.app, replica, level=spec.log_level, style=_log_style(spec))

    def _on_prefork_lifecycle(self, what: str, pool: BasePool, **facts: Any) -> None:
        if what != "start_failed":
            self.application.on_pool_lifecycle(what, pool, **facts)
        elif facts["attempts"] >= MOST_FAILED_STARTS:
            self.consumer.give_up(_cause(facts["problem"]))

    def _on_blocked(self, handle: Any) -> None:
        self.parts.forced_exit.on_blocked(handle)

    def _on_hard_limit(self, handle: Any) -> None:
        self.parts.forced_exit.on_hard_limit(handle)

    def _on_terminate_job(self, handle: Any, signum: int) -> None:  # noqa: ARG002
        self.parts.forced_exit.on_terminate_job(handle)

    def _private_fds(self) -> list[int]:
        """Asked for in a fresh child: connections are the parent's alone."""
        control = self.control.fds() if self.control is not None else []
        store = self.parts.unstored.store
        return [*self.channel.fds(), self.box.fileno(), *control, *(store.fds() if store is not None else ())]

    def _make_channel(self) -> Channel:
        options = self.options
        held = max(self.pool.limit, options.spec.task.prefetch or 0)
        return open_channel(
            options.broker_url,
            queues=options.spec.queues,
            replica=options.replica,
            fleet=options.spec.fleet,
            prefetch_hint=held,
            options=self.application.transport_options(options.spec.broker.visibility_timeout_seconds),
            entities=self.application.queue_entities(),
            kept=Kept(
                options.record_path and options.record_path.with_suffix(".acks"),
                _finished_path(options),
                store_left=lambda packed: self.parts.unstored.store_left(packed),
            ),
            ran=self._ran_before,
        )

    def _make_control(self) -> Control | None:
        """For Celery apps, whose tools expect it. A registry has none, which saves two connections per replica."""
        remote = self.application.remote()
        if remote is None or not self.options.spec.remote_control.enabled:
            return None
        control = make_control(
            self.parts,
            self.options.broker_url,
            self.node,
            remote=remote,
            loop=self.loop,
            options=self.application.transport_options(None),
        )
        self.parts.forced_exit.on_exit.append(control.on_exit)
        return control

    def _start_answering(self) -> None:
        if self.control is not None:
            self.control.attend()  # a ready worker can be reached
            self.control.greet(self.parts.revoked)
        if self.parts.submission.is_inline:
            housekeeping = HousekeepingThread(self.consumer, self.control, box_fd=self.box.fileno())
            self.parts.submission.before_inline = housekeeping.look
            if self.control is not None:
                self.control.events.on_first_noted = self.control.on_hung_up = housekeeping.wake
            housekeeping.start()
            self.housekeeping = housekeeping
        elif self.control is not None:
            ControlInLoop(self.control, self.loop).start()
        if self.control is not None:
            self.control.join(self.consumer.every_second, self.consumer.pauses)

    def _close(self, *, crashed: bool = False) -> None:
        """Close everything, also after an error: the broker must get back what was not finished."""
        for step in self._closing_steps(crashed=crashed):
            try:
                step()
            except Exception:
                log.exception("the worker did not close cleanly")
        global _occupied
        _occupied = self.pool.busy_slots > 0

    def _closing_steps(self, *, crashed: bool) -> list[Callable[[], object]]:
        stuck = bool(self.parts.inflight.running) or self.pool.busy_slots > 0
        return [
            self.housekeeping.close if self.housekeeping is not None else _nothing,
            self.pool.terminate if stuck else self.pool.stop,
            self.channel.close,
            self.control.close if self.control is not None else _nothing,
            partial(self.application.announce, "stopped"),
            self._counting.counters.close if self._counting is not None else _nothing,
            # After a crash the record stays as it is: the launcher counts it, against the tasks that were running, too.
            _nothing if crashed else self._record_end,
            partial(log.info, "crashed" if crashed else "stopped"),
        ]

    def _record_end(self) -> None:
        failure = self.consumer.failure
        self.record.become("failed" if failure else "stopped", failure)


def make_control(
    parts: LoopParts, url: str, node: str, *, remote: Remote, loop: EventLoop, options: Mapping[str, Any] | None = None
) -> Control:
    """Remote control over the worker that has these parts."""
    totals = parts.starting.totals
    events = Events(
        node,
        remote.clock,
        admission=parts.admission,
        listeners=parts.listeners,
        pool=parts.pool,
        totals=totals,
        on_heartbeat=remote.on_heartbeat,
    )
    inspection = Inspection(
        remote,
        node,
        replica=parts.options.replica,
        application=parts.application,
        pool=parts.pool,
        inflight=parts.inflight,
        settings=parts.settings,
        revoked=parts.revoked,
        totals=totals,
    )
    commands = Commands(
        remote,
        LoopCalls(parts.channel.lock, loop),
        node=node,
        events=events,
        application=parts.application,
        pool=parts.pool,
        inflight=parts.inflight,
        settings=parts.settings,
        revoked=parts.revoked,
        most_slots=parts.options.spec.remote_control.max_slots,
    )
    return Control(
        url,
        node,
        remote=remote,
        events=events,
        inspection=inspection,
        commands=commands,
        connection=parts.connection,
        options=options,
        allow=parts.options.spec.remote_control.allow,
        broadcast=getattr(parts.channel, "broadcast", None),
        folder=parts.options.record_path and parts.options.record_path.parent,
    )


_occupied = False
"""Whether a task still had a slot when its pool was given up: its thread may keep the interpreter from ending."""


def _cause(problem: str) -> str:
    """The error itself, in one line: a record has little room."""
    line = problem.splitlines()[0]
    return line.partition("): ")[2] or line


def _nothing() -> None:
    pass


def _ran_before(options: WorkerOptions) -> Container[str] | None:
    """Ids of the tasks that ran when the process before this one ended; None where nothing says that.

    By its record; where the launcher, which has become this very process, wrote another since, by the crash history.
    """
    earlier = records.read(options.record_path) if options.record_path is not None else None
    if earlier is None:
        return None
    if earlier.pid != os.getpid():
        return {task.task_id for task in earlier.tasks}
    return read_history(options.history_path).deaths if options.history_path is not None else None


def _open_record(options: WorkerOptions, *, slots: int) -> Record:
    """The record of this process; that of a worker run by hand is in memory alone."""
    path = options.record_path
    if path is None:
        return Record(None, digest=options.digest, slots=slots)
    make_folders(path.parent)
    return Record(path, digest=options.digest, slots=slots)


def _set_title(options: WorkerOptions) -> None:
    with suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(f"fleet: {options.replica} ({options.spec.fleet}) {options.spec.pool.type}")


def leave(code: int) -> None:
    """End the process. Without the interpreter's own clean-up when a thread still runs a task that cannot be ended."""
    import threading

    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if _occupied or any(thread.daemon and thread.name.startswith("pool-") for thread in others):
        logging.shutdown()
        forced_exit.end_descendants()  # what that task started must not outlive it
        os._exit(code)
    sys.exit(code)
