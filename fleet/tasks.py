"""``fleet.Tasks``: plain functions as tasks, without a result backend.

    tasks = Tasks("shop")

    @tasks.task(max_retries=5)
    def thumb(path: str) -> None: ...

    thumb("a.png")                                   # still a plain function
    thumb.send("a.png")                              # runs in a worker; the result is not kept
    thumb.options(queue="slow", countdown=30).send("a.png")

A task that raises is tried again with growing pauses; after its last retry the message goes to ``<queue>.dead`` with
the error in its headers. Nothing here imports a broker library before the first ``send``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from fleet.broker.backoff import Backoff
from fleet.broker.message import Built, build
from fleet.errors import FleetError
from fleet.tracing.sending import Mark, sending

if TYPE_CHECKING:
    from fleet.broker.publisher import Outgoing, Publisher

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_QUEUE = "default"
RETRY_BACKOFF = Backoff(1.0, 600.0, 0.5)
BROKER_VARIABLE = "FLEET_BROKER_URL"


class Retry(Exception):
    """Raised inside a task: run it again, after ``after_seconds`` (default: the task's own back-off).

    It counts as a retry like an error does, and after ``max_retries`` the message goes to the dead letters.
    """

    def __init__(self, message: str = "asked to be run again", *, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


@dataclass(frozen=True, slots=True)
class Current:
    """What a running task may know of its own message. ``retries`` is 0 on the first run."""

    id: str
    name: str
    queue: str
    retries: int
    redelivered: bool


CURRENT: ContextVar[Current | None] = ContextVar("fleet_current_task", default=None)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a task that raised is run again."""

    max_retries: int = 3
    backoff: Backoff = RETRY_BACKOFF
    retry_for: tuple[type[BaseException], ...] = (Exception,)

    def pause_seconds(self, error: BaseException, retries: int) -> float | None:
        """Seconds until the next run after ``retries`` earlier ones, or None when there is none."""
        if retries >= self.max_retries:
            return None
        if isinstance(error, Retry):
            return self.backoff.seconds(retries) if error.after_seconds is None else max(0.0, error.after_seconds)
        return self.backoff.seconds(retries) if isinstance(error, self.retry_for) else None


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How one message is sent. Default: the task's own settings. ``countdown`` and ``expires`` are seconds from now."""

    queue: str | None = None
    countdown: float | None = None
    eta: datetime | None = None
    expires: float | datetime | None = None
    priority: int | None = None


class Task(Generic[P, R]):
    """A registered function. Calling it runs it here; :meth:`send` lets a worker run it."""

    def __init__(
        self,
        function: Callable[P, R],
        registry: Tasks,
        *,
        name: str,
        queue: str | None = None,
        retry: RetryPolicy = RetryPolicy(),
        acks: str | None = None,
        time_limit_seconds: float | None = None,
        soft_time_limit_seconds: float | None = None,
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.registry = registry
        self.name = name
        self.queue = queue
        self.retry = retry
        self.acks = acks
        self.time_limit_seconds = time_limit_seconds
        self.soft_time_limit_seconds = soft_time_limit_seconds
        self.is_async = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> str:
        """Pickled by name, as a function is, so that a task may hand itself to a process pool."""
        return str(getattr(self.function, "__qualname__", self.name))

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def send(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Send it to its queue; returns the id of the task."""
        return self.registry.send(self.name, args, kwargs)

    def options(
        self,
        *,
        queue: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        priority: int | None = None,
    ) -> BoundTask[P, R]:
        """The same task with different options for sending."""
        return BoundTask(self, SendOptions(queue, countdown, eta, expires, priority))


@dataclass(frozen=True, slots=True)
class BoundTask(Generic[P, R]):
    """A task together with how it is sent."""

    task: Task[P, R]
    how: SendOptions

    def send(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Send it; returns the id of the task."""
        return self.task.registry.send_with(self.task.name, args, kwargs, self.how)


class Tasks:
    """A registry of functions that workers run. ``broker`` default: FLEET_BROKER_URL, which every worker has."""

    def __init__(
        self,
        name: str,
        broker: str | None = None,
        *,
        queue: str = DEFAULT_QUEUE,
        accept: Collection[str] = ("json", "msgpack"),
    ) -> None:
        if unsafe := set(accept) - {"json", "msgpack", "yaml"}:  # whoever may write to the broker could run code here
            raise ValueError(f"messages of {sorted(unsafe)[0]!r} are not accepted: json, msgpack and yaml can be")
        self.name = name
        self.queue = queue
        self.broker = broker
        self.accept = tuple(accept)
        self._tasks: dict[str, Task[..., Any]] = {}
        self._publisher: tuple[int, Publisher] | None = None

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        max_retries: int = 3,
        backoff_seconds: float = 1.0,
        backoff_max_seconds: float = 600.0,
        jitter: bool = True,
        retry_for: Sequence[type[BaseException]] = (Exception,),
        acks: str | None = None,
        time_limit_seconds: float | None = None,
        soft_time_limit_seconds: float | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(
        self,
        function: Callable[P, R] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        max_retries: int = 3,
        backoff_seconds: float = 1.0,
        backoff_max_seconds: float = 600.0,
        jitter: bool = True,
        retry_for: Sequence[type[BaseException]] = (Exception,),
        acks: str | None = None,
        time_limit_seconds: float | None = None,
        soft_time_limit_seconds: float | None = None,
    ) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
        """Register a function: ``@tasks.task`` or ``@tasks.task(max_retries=5)``.

        retry_for: exceptions worth another try; any other goes to the dead letters at once.
        acks: ``late`` (default: a crash runs the task again) or ``early`` (a crash loses it, it never runs twice).
        """
        if acks not in (None, "early", "late"):
            raise ValueError(f"acks is 'early' or 'late', not {acks!r}")
        pauses = Backoff(backoff_seconds, backoff_max_seconds, 0.5 if jitter else 0.0)
        retry = RetryPolicy(max_retries, pauses, tuple(retry_for))

        def register(function: Callable[P, R]) -> Task[P, R]:
            return self._register(
                Task(
                    function,
                    self,
                    name=name or self._default_name(function),
                    queue=queue,
                    retry=retry,
                    acks=acks,
                    time_limit_seconds=time_limit_seconds,
                    soft_time_limit_seconds=soft_time_limit_seconds,
                )
            )

        return register if function is None else register(function)

    def get(self, name: str) -> Task[..., Any] | None:
        """The task of that name."""
        return self._tasks.get(name)

    def names(self) -> list[str]:
        """Names of all tasks, sorted."""
        return sorted(self._tasks)

    @property
    def current(self) -> Current | None:
        """The message that runs now, seen from inside a task; None elsewhere."""
        return CURRENT.get()

    def send(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        priority: int | None = None,
    ) -> str:
        """Send a task by name; it need not be registered here. Returns its id."""
        return self.send_with(name, args, kwargs or {}, SendOptions(queue, countdown, eta, expires, priority))

    def send_with(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], how: SendOptions) -> str:
        """Send a task as ``how`` says. Raises FleetError without a broker, Unreachable when it does not answer."""
        queue = how.queue or self._queue_of(name)
        built = build(
            name, args, kwargs, countdown=how.countdown, eta=how.eta, expires=how.expires, priority=how.priority
        )
        publisher = self._open_publisher()
        with sending(name, queue, url=publisher.url) as mark:
            mark(built.headers)
            publisher.send(outgoing(queue, built))
        return str(built.headers["id"])

    def send_many(
        self, name: str, calls: Iterable[Sequence[Any]], *, queue: str | None = None, batch: int = 500
    ) -> int:
        """Send a task many times, once per list of arguments, in batches; how many were sent."""
        target, publisher = queue or self._queue_of(name), self._open_publisher()
        with sending(name, target, url=publisher.url) as mark:
            return publisher.send_many((_marked(target, build(name, args), mark) for args in calls), batch=batch)

    def _queue_of(self, name: str) -> str:
        task = self._tasks.get(name)
        return (task.queue if task is not None else None) or self.queue

    def _default_name(self, function: Callable[..., Any]) -> str:
        """``module.function``; in a script, where the module has no name of its own, the registry's name instead."""
        module = self.name if function.__module__ == "__main__" else function.__module__
        return f"{module}.{function.__name__}"

    def _register(self, task: Task[P, R]) -> Task[P, R]:
        if task.name in self._tasks:
            raise ValueError(f"there is a task named {task.name!r} already in Tasks({self.name!r})")
        self._tasks[task.name] = task
        return task

    def close(self) -> None:
        """Close the connection to the broker. The next send opens a new one."""
        if self._publisher is not None and self._publisher[0] == os.getpid():
            self._publisher[1].close()
        self._publisher = None

    def _open_publisher(self) -> Publisher:
        """One publisher per process: a forked child must not use its parent's connection."""
        if self._publisher is None or self._publisher[0] != os.getpid():
            from fleet.broker.publisher import Publisher

            self._publisher = (os.getpid(), Publisher(self._broker_url()))
        return self._publisher[1]

    def _broker_url(self) -> str:
        url = self.broker or os.environ.get(BROKER_VARIABLE)
        if not url:
            raise FleetError(
                f"Tasks({self.name!r}) has no broker to send to",
                hint=f"give it one, Tasks({self.name!r}, broker='redis://…'), or set {BROKER_VARIABLE}",
            )
        return url

    def __repr__(self) -> str:
        return f"<Tasks {self.name!r}: {len(self._tasks)} tasks>"


def _marked(queue: str, built: Built, mark: Mark) -> Outgoing:
    mark(built.headers)
    return outgoing(queue, built)


def outgoing(queue: str, built: Built) -> Outgoing:
    """A built message, addressed."""
    from fleet.broker.publisher import Outgoing

    return Outgoing(queue, built.body, built.headers, built.properties, built.content_type, built.content_encoding)
