"""Signals for apps that are ``fleet.Tasks`` registries: what happens to a worker, its processes and its tasks.

    from fleet.signals import task_failure, worker_process_init

    @worker_process_init.connect
    def connect_database(**_): ...

    @task_failure.connect(sender=thumb)
    def complain(sender, task_id, exception, **_): ...

Names and keyword arguments are Celery's. A Celery app keeps Celery's own signals, which fire under fleet's worker as
well. ``sender`` is the task for the signals of tasks that the registry has, else the worker's name on the broker.

Where they are sent: ``task_prerun``, ``task_postrun``, ``task_success``, ``task_failure`` and ``task_retry`` in the
slot that runs the task (an end that the slot cannot tell, like a hard time limit, in the worker's process);
``worker_process_init`` and ``worker_process_shutdown`` once in every process that runs tasks; all others in the
worker's process.

Receivers run where the signal is sent and hold up what they watch. One that raises is logged and harms nobody else;
but a process in which a receiver of ``worker_process_init`` raised runs no tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, overload

log = logging.getLogger("fleet.signals")

Receiver = TypeVar("Receiver", bound=Callable[..., object])


class Signal:
    """Something that can happen. Receivers are called in the order in which they were connected, and kept alive."""

    __slots__ = ("_connected", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._connected: tuple[tuple[Callable[..., object], Any], ...] = ()

    def __repr__(self) -> str:
        return f"<Signal {self.name}: {len(self._connected)} receivers>"

    @property
    def heard(self) -> bool:
        """Whether there is a receiver: without one, expensive arguments need not be made."""
        return bool(self._connected)

    @overload
    def connect(self, receiver: Receiver, *, sender: object = None) -> Receiver: ...

    @overload
    def connect(self, receiver: None = None, *, sender: object = None) -> Callable[[Receiver], Receiver]: ...

    def connect(
        self, receiver: Receiver | None = None, *, sender: object = None
    ) -> Receiver | Callable[[Receiver], Receiver]:
        """Call ``receiver(sender=…, signal=…, **arguments)`` from now on: ``@signal.connect``.

        ``@signal.connect(sender=task)``: only when it comes from there. Connecting the same twice is connecting once.
        """

        def connect(receiver: Receiver) -> Receiver:
            if (receiver, sender) not in self._connected:
                self._connected = (*self._connected, (receiver, sender))
            return receiver

        return connect if receiver is None else connect(receiver)

    def disconnect(self, receiver: Callable[..., object], *, sender: object = None) -> bool:
        """Stop calling this receiver; whether it was connected."""
        left = tuple(pair for pair in self._connected if pair != (receiver, sender))
        found, self._connected = len(left) < len(self._connected), left
        return found

    def send(self, sender: object, **arguments: Any) -> tuple[Exception, ...]:
        """Call the receivers; what they raised. Never raises an Exception."""
        errors = []
        for receiver, wanted in self._connected:
            if wanted is None or wanted is sender:
                try:
                    receiver(sender=sender, signal=self, **arguments)
                except Exception as error:
                    log.exception("a receiver of %s failed: %r", self.name, receiver)
                    errors.append(error)
        return tuple(errors)


worker_init = Signal("worker_init")
"""Before the pool is made."""
worker_ready = Signal("worker_ready")
"""It takes tasks."""
worker_shutting_down = Signal("worker_shutting_down")
"""It was asked to stop. Arguments: sig, how (``Warm`` or ``Cold``), exitcode."""
worker_shutdown = Signal("worker_shutdown")
"""It is about to exit."""
worker_before_create_process = Signal("worker_before_create_process")
"""A child of a prefork pool is about to be started."""
worker_process_init = Signal("worker_process_init")
"""A process is about to run its first task: the place to open connections, for every pool.
A process in which a receiver raises runs no tasks: it is tried again, a few times."""
worker_process_shutdown = Signal("worker_process_shutdown")
"""A process has run its last task. Arguments: pid, exitcode. Not sent by a process that is killed."""

task_received = Signal("task_received")
"""A message has come. Arguments: request."""
task_prerun = Signal("task_prerun")
"""A task starts. Arguments: task_id, task, args, kwargs."""
task_postrun = Signal("task_postrun")
"""A task has ended. Arguments: task_id, task, args, kwargs, retval, state."""
task_success = Signal("task_success")
"""It returned. Arguments: result, runtime."""
task_failure = Signal("task_failure")
"""It failed for good. Arguments: task_id, exception, args, kwargs, traceback, einfo (None)."""
task_retry = Signal("task_retry")
"""It will run again. Arguments: request, reason, einfo (None)."""
task_revoked = Signal("task_revoked")
"""It was revoked, terminated, or had expired. Arguments: request, terminated, signum, expired."""
task_rejected = Signal("task_rejected")
"""A message is no task. Arguments: message, exc."""
task_unknown = Signal("task_unknown")
"""There is no task of that name. Arguments: message, exc, name, id."""
