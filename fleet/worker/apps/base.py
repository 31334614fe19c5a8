"""What the worker needs of an app, whichever kind it is.

Two kinds exist: a Celery app (:mod:`fleet.worker.apps.celery`) and a fleet ``Tasks`` registry
(:mod:`fleet.worker.apps.registry`). Celery is imported only when the app is Celery's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fleet.worker.task.call import Call, ChildLimits, EncodedResult, Ending, Outcome, Stage, TaskPolicy

if TYPE_CHECKING:
    from fleet.worker.task.listeners import TaskListener


class Remote(Protocol):
    """The side of an app that faces remote control and monitors."""

    @property
    def namespace(self) -> str:
        """Prefix of the exchange for commands, ``<namespace>.pidbox``."""
        ...

    @property
    def event_exchange(self) -> str:
        """Name of the exchange for events."""
        ...

    @property
    def sends_task_events(self) -> bool:
        """Whether events about tasks are on from the start."""
        ...

    @property
    def clock(self) -> Any:
        """Lamport's clock, shared with what the app itself sends."""
        ...

    @property
    def queue_options(self) -> Mapping[str, Any]:
        """Options of the worker's own queue for commands, by the names of kombu's mailbox."""
        ...

    def settings(self, *, with_defaults: bool) -> dict[str, Any]:
        """The app's settings as JSON can carry them, secrets hidden."""
        ...

    def report(self) -> str:
        """Versions and settings, for bug reports."""
        ...

    def task_details(self, name: str, items: Sequence[str]) -> dict[str, str]:
        """These attributes of a task, as far as they are set."""
        ...

    def set_rate_limit(self, name: str, rate: object) -> None:
        """Note a changed rate of a task; None: no limit."""
        ...

    def on_heartbeat(self) -> bool:
        """Tell the app of a heartbeat; whether anything in it wants to know."""
        ...

    def own_commands(self, node: str) -> Mapping[str, Callable[..., Any]]:
        """Commands that the app defines itself, by name; each is called with the arguments of the message."""
        ...

    def define_queue(self, name: str, *, exchange: str, exchange_type: str, routing_key: str) -> None:
        """Make the queue one of the app's, bound like this. One that the app defines stays as it is."""
        ...


class ResultStore(Protocol):
    """Where the worker's process stores results that its slots have encoded, many at once."""

    def store(self, results: Sequence[EncodedResult]) -> Sequence[bool]:
        """Store these; which of them are stored now. A slot must store the others. Waits for seconds at most."""
        ...

    def fds(self) -> Sequence[int]:
        """Descriptors that belong to this process alone."""
        ...


class Application(Protocol):
    """An app of either kind. Worker side: names, policies. Slot side: ``prepare_process``, ``run``, ``record_end``."""

    kind: str
    records_ends: bool
    """Whether results are stored, so that ends outside of the task must be recorded."""

    @property
    def accept(self) -> Collection[str]:
        """Serializers or content types whose messages may be decoded."""
        ...

    def prepare_worker(self, node: str, *, pool: str, concurrency: int, broker_url: str) -> None:
        """Once, in the worker's process, before any slot exists. ``node`` is the worker's name on the broker."""
        ...

    def complete(self) -> None:
        """Import and build all that tasks need, once, in the process that workers are forked from: nothing is sent."""
        ...

    def import_tasks(self) -> None:
        """Import all that tasks need, in a process that inherited nothing. Nothing is sent, opened or run."""
        ...

    def prepare_process(self, node: str) -> None:
        """Once in every process that runs tasks. Raises what a receiver of ``worker_process_init`` raised."""
        ...

    def task_names(self) -> Sequence[str]:
        """Every task that may be asked for, sorted."""
        ...

    def knows(self, name: str) -> bool:
        """Whether there is such a task."""
        ...

    def policy(self, name: str) -> TaskPolicy:
        """The app's settings for a task it knows."""
        ...

    def after_end(self, call: Call, ending: Ending, detail: str) -> Outcome:
        """What becomes of a message whose task ended in a way its own process could not report."""
        ...

    def is_async(self, name: str) -> bool:
        """Whether ``run_async`` can await this task, where the pool has a loop."""
        ...

    async def run_async(self, call: Call) -> Outcome:
        """Run the task on the running loop. Raises what ``run`` raises."""
        ...

    def run(self, call: Call) -> Outcome:
        """Run the task, here and now. Raises nothing but what the pool itself raises into a task."""
        ...

    def record_end(self, call: Call, ending: Ending, detail: str, *, limit_seconds: float | None = None) -> None:
        """Record how a task ended that could not report it itself. limit_seconds: its hard limit."""
        ...

    def result_store(self) -> ResultStore | None:
        """Stores results that slots leave to the worker's process; None where they store all themselves."""
        ...

    def store_result(self, result: EncodedResult) -> None:
        """Store a result, in a slot, with the retries of the app. Raises what the last one raised."""
        ...

    def mark_revoked(self, ids: Sequence[str]) -> None:
        """Let whoever waits for these know that they will not run, as far as none of them has begun or is over."""
        ...

    def transport_options(self, visibility_timeout_seconds: float | None) -> Mapping[str, Any]:
        """kombu's options for the broker."""
        ...

    def child_limits(self) -> ChildLimits:
        """When a child of a prefork pool is replaced, where the manifest says nothing."""
        ...

    def rate_limits(self) -> Mapping[str, object]:
        """The rates that the app itself sets, by task, as people write them."""
        ...

    def default_queues(self) -> Sequence[str]:
        """The queues of a worker that is told of none."""
        ...

    def default_broker_url(self) -> str:
        """The broker of a worker that is told of none; empty where the app names none either."""
        ...

    def queue_entities(self) -> Mapping[str, Any]:
        """kombu queues as the app would declare them, by name; a lookup may make one."""
        ...

    def remote(self) -> Remote | None:
        """What remote control and events need of the app; None: there is no remote control."""
        ...

    def finish_process(self) -> None:
        """Once in every process that ran tasks, after the last one."""
        ...

    def announce(self, what: Stage) -> None:
        """Tell the app the stage of the worker, for its own signals."""
        ...

    def listener(self) -> TaskListener:
        """Sends the app's signals about tasks that only the worker's process knows. After ``prepare_worker``."""
        ...

    def on_pool_lifecycle(self, what: str, pool: Any, **facts: Any) -> None:
        """For the app's signals. ``before_create_process`` of a prefork pool; ``started``, ``preshutdown``,
        ``postshutdown`` or ``apply`` of an eventlet pool."""
        ...
