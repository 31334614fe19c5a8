"""Remote control with Celery's names: ``celery inspect`` and ``celery control`` find a fleet worker like any other.

kombu's pidbox (a fanout exchange and a queue per worker) on a connection of its own, so that an answer never waits for
the tasks' connection. Transports without fanout have no remote control; the record tells the same facts without a
broker.
"""

from __future__ import annotations

import logging
import os
import resource
import signal as signals
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fleet.broker.connection import kombu_connection, masked
from fleet.worker.backoff import Backoff
from pools.errors import PoolError

if TYPE_CHECKING:
    from fleet.worker.consumer import Consumer

log = logging.getLogger("fleet.worker")

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 60.0
RECONNECT = Backoff(2.0, 60.0, 0.3)


class Control:
    """One worker's mailbox. Used by one thread: the attendant, or the loop."""

    def __init__(
        self, consumer: Consumer, url: str, node: str, *, namespace: str = "celery", options: Any = None
    ) -> None:
        self._consumer = consumer
        self._url = url
        self._node_name = node
        self._namespace = namespace
        self._options = options
        self._connection: Any = None
        self._node: Any = None
        self._failed = 0
        self._connect_at = 0.0
        self._off = self._tried = False
        self._started = time.time()
        self._heartbeat_at = 0.0

    @property
    def poll_seconds(self) -> float | None:
        """Never rely on descriptors alone: some transports have none."""
        return None if self._off else POLL_SECONDS

    def fds(self) -> list[int]:
        """Sockets on which a command may come, as far as the transport has such a thing."""
        if self._connection is None:
            return []
        with suppress(Exception):
            return _sockets(self._connection)
        return []

    def attend(self) -> None:
        """Answer what has come. Never raises."""
        if self._off:
            return
        try:
            if self._connection is None:
                self._open()
            else:
                self._drain()
        except Exception as error:
            self._on_error(error)

    def close(self) -> None:
        """Leave. Never raises."""
        self._off = True
        self._hang_up()

    # -- connection

    def _open(self) -> None:
        if time.monotonic() < self._connect_at or (self._tried and not self._consumer.line.up):
            return  # while the broker is away, the tasks' line finds out when it is back
        self._tried = True
        connection = kombu_connection(self._url, options=self._options, heartbeat_seconds=HEARTBEAT_SECONDS)
        if not connection.transport.implements.exchange_type >= {"fanout"}:
            log.info("no remote control: %s has no fanout", masked(self._url))
            self._off = True
            return
        connection.connect()
        self._connection = connection
        self._node = self._make_node(connection)
        self._node.listen(callback=self._on_message)
        self._failed = 0

    def _make_node(self, connection: Any) -> Any:
        from kombu.pidbox import Mailbox

        mailbox = Mailbox(
            self._namespace,
            type="fanout",
            connection=connection,
            accept=["json"],
            serializer="json",
            queue_ttl=300.0,
            queue_expires=10.0,
            queue_exclusive=False,
            reply_queue_expires=10.0,
        )
        handlers = {name: _without_state(handler, self) for name, handler in COMMANDS.items()}
        return mailbox.Node(self._node_name, channel=connection.channel(), handlers=handlers)

    def _drain(self) -> None:
        connection = self._connection
        now = time.monotonic()
        if now >= self._heartbeat_at and connection.supports_heartbeats:
            self._heartbeat_at = now + HEARTBEAT_SECONDS / 4
            connection.heartbeat_check(rate=2)
        with suppress(TimeoutError, socket.timeout):
            while True:
                connection.drain_events(timeout=0)

    def _on_message(self, body: Any, message: Any) -> None:
        try:
            if isinstance(body, dict) and body.get("method") in COMMANDS:
                self._node.handle_message(body, message)
        except self._connection.connection_errors:
            raise
        except Exception as error:
            log.warning("control command %r failed: %r", body.get("method"), error)

    def _on_error(self, error: Exception) -> None:
        pause = RECONNECT.seconds(self._failed)
        if self._failed == 0:
            log.warning("remote control is away: %s; next try in %.0f s", error, pause)
        self._failed += 1
        self._connect_at = time.monotonic() + pause
        self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection, self._node = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.release()

    # -- commands

    def ping(self, **_: Any) -> Any:
        """Are you there?"""
        return {"ok": "pong"}

    def active(self, **_: Any) -> Any:
        """What runs."""
        return [job.describe() for job in self._consumer.jobs() if job.slot >= 0]

    def reserved(self, **_: Any) -> Any:
        """What is here and has not started."""
        return [job.describe() for job in self._consumer.jobs() if job.slot < 0 and not job.due]

    def scheduled(self, **_: Any) -> Any:
        """What waits here for its date."""
        waiting = [job for job in self._consumer.jobs() if job.slot < 0 and job.due]
        return [{"eta": job.due, "priority": 6, "request": job.describe()} for job in waiting]

    def registered(self, **_: Any) -> Any:
        """Names of tasks, Celery's own left out."""
        return [name for name in self._consumer.application.task_names() if not name.startswith("celery.")]

    def revoked(self, **_: Any) -> Any:
        """Ids that must not run."""
        return self._consumer.revoked.ids()

    def active_queues(self, **_: Any) -> Any:
        """What is consumed."""
        return [{"name": name, "routing_key": name} for name in self._consumer.queues()]

    def stats(self, **_: Any) -> Any:
        """Facts about this worker."""
        consumer = self._consumer
        return {
            "pid": os.getpid(),
            "uptime": int(time.time() - self._started),
            "clock": "0",
            "prefetch_count": consumer.pool.limit,
            "total": {"all": consumer.record.processed},
            "pool": consumer.pool.info,
            "broker": {"uri": masked(self._url)},
            "rusage": {"maxrss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss},
            "replica": consumer.options.replica,
        }

    def revoke(self, task_id: Any = (), terminate: bool = False, signal: Any = None, **_: Any) -> Any:
        """These must not run; with ``terminate`` a running one is ended."""
        ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
        self._consumer.revoked.add(ids)
        log.info("revoked: %s", ", ".join(ids))
        if not terminate:
            return {"ok": f"tasks {', '.join(ids)} flagged as revoked"}
        ended = [task_id for task_id in ids if self._terminate(task_id, _signal_number(signal))]
        return {"ok": f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown"}

    def terminate(self, task_id: Any = (), signal: Any = None, **more: Any) -> Any:
        """``revoke`` with ``terminate``; the signal comes first in Celery's own call."""
        return self.revoke(task_id=task_id, terminate=True, signal=signal, **more)

    def shutdown(self, **_: Any) -> Any:
        """A warm stop. The supervisor starts the replica again unless the manifest says otherwise."""
        log.warning("shutdown asked for by remote control")
        os.kill(os.getpid(), signals.SIGTERM)
        return {"ok": "stopping"}

    def _terminate(self, task_id: str, signum: int) -> bool:
        for job in self._consumer.jobs():
            if job.call.id == task_id and job.slot >= 0 and job.ending is None:
                job.revoked = True
                handle = job.handle or getattr(self._consumer.pool, "current", None)
                try:
                    return handle is not None and self._consumer.pool.terminate_job(handle, signum)
                except PoolError as error:
                    log.warning("task %s cannot be ended: %s", task_id, error)
                    job.revoked = False
                    return False
        return False


COMMANDS: Mapping[str, Callable[..., Any]] = {
    "ping": Control.ping,
    "active": Control.active,
    "dump_active": Control.active,
    "reserved": Control.reserved,
    "dump_reserved": Control.reserved,
    "scheduled": Control.scheduled,
    "dump_schedule": Control.scheduled,
    "registered": Control.registered,
    "dump_tasks": Control.registered,
    "revoked": Control.revoked,
    "dump_revoked": Control.revoked,
    "active_queues": Control.active_queues,
    "stats": Control.stats,
    "revoke": Control.revoke,
    "terminate": Control.terminate,
    "shutdown": Control.shutdown,
}


def _without_state(handler: Callable[..., Any], control: Control) -> Callable[..., Any]:
    def handle(state: Any, **arguments: Any) -> Any:  # noqa: ARG001
        return handler(control, **arguments)

    return handle


def _signal_number(value: Any) -> int:
    """``KILL``, ``SIGKILL`` or 9."""
    if isinstance(value, int):
        return value
    name = str(value or "TERM").upper()
    found = getattr(signals, name if name.startswith("SIG") else f"SIG{name}", signals.SIGTERM)
    return int(found)


def _sockets(connection: Any) -> list[int]:
    transport = connection.transport
    if transport.driver_type == "amqp" and hasattr(connection.connection, "sock"):
        return [connection.connection.sock.fileno()]
    found = []
    for channel in getattr(connection.connection, "channels", ()) or ():
        link = getattr(getattr(channel, "subclient", None), "connection", None)
        if link is not None and link._sock is not None:
            found.append(link._sock.fileno())
    return found
