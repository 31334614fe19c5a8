"""What the worker needs of an app, whichever kind it is, and how an app is found by its name ``module:attr``.

Two kinds exist: a Celery app (:mod:`fleet.worker.apps.celery`) and a fleet ``Tasks`` registry
(:mod:`fleet.worker.apps.registry`). Celery is imported only when the app is Celery's.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fleet.errors import FleetError
from fleet.worker.task.call import Call, ChildLimits, Ending, Outcome, Stage, TaskPolicy

if TYPE_CHECKING:
    from fleet.worker.task.listeners import TaskListener


class Remote(Protocol):
    """The side of an app that faces remote control and monitors."""

    @property
    def namespace(self) -> str:
        """Commands come to the exchange ``<namespace>.pidbox``."""
        ...

    @property
    def event_exchange(self) -> str:
        """Where events go."""
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
        """Of the worker's own queue for commands, in the words of kombu's mailbox."""
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
        """A task has another rate now; None: no limit."""
        ...

    def command(self, name: str, node: str) -> Callable[..., Any] | None:
        """A command that the app itself brings, called with its arguments by name; None where it has none."""
        ...

    def on_heartbeat(self) -> None:
        """A heartbeat was sent."""
        ...


class Application(Protocol):
    """An app behind one face. Worker side: names, policies. Slot side: ``prepare_process``, ``run``, ``record_end``."""

    kind: str
    records_ends: bool
    """Whether somebody waits for results, so that ends outside of the task must be recorded."""

    @property
    def accept(self) -> Collection[str]:
        """Serializers or content types whose messages may be decoded."""
        ...

    def prepare_worker(self, node: str, *, pool: str, concurrency: int, broker_url: str) -> None:
        """Once, in the worker's process, before any slot exists. ``node`` is the worker's name on the broker."""
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
        """What the app says about a task it knows."""
        ...

    def after_end(self, call: Call, ending: Ending, detail: str) -> Outcome:
        """What becomes of a message whose task ended in a way its own process could not tell."""
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
        """Let the app know how a task ended that could not tell itself. limit_seconds: its hard limit."""
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

    def queue_entities(self) -> Mapping[str, Any]:
        """kombu queues that the app defines itself, by name."""
        ...

    def remote(self) -> Remote | None:
        """What remote control and events need of the app; None: nobody sends commands, nobody listens."""
        ...

    def finish_process(self) -> None:
        """Once in every process that ran tasks, after the last one."""
        ...

    def announce(self, what: Stage) -> None:
        """How far the worker's life has come: for the app's own signals."""
        ...

    def listener(self) -> TaskListener:
        """Who sends the app's signals about tasks that only the worker's process knows of. After ``prepare_worker``."""
        ...

    def on_pool_lifecycle(self, what: str, pool: Any, **facts: Any) -> None:
        """For the app's signals. ``before_create_process`` of a prefork pool; ``started``, ``preshutdown``,
        ``postshutdown`` or ``apply`` of an eventlet pool."""
        ...


def import_object(path: str) -> object:
    """The object that ``module:attr`` (or ``module``) names. Raises FleetError with what to do about it."""
    module_name, _, attribute = path.partition(":")
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        raise FleetError(f"the app {path!r} cannot be imported: {error!r}", hint=_import_hint(error)) from error
    if attribute:
        return _attribute(found, path, attribute)
    return _only_app(found) or _only_app(_submodule(path)) or _no_app(found, path)


def load(path: str) -> Application:
    """The app at ``module:attr``, wrapped according to its kind. Raises FleetError."""
    return wrap(import_object(path), path)


def wrap(found: object, path: str) -> Application:
    """An app object behind one face. Raises FleetError for anything that is no app."""
    from fleet.tasks import Tasks

    if isinstance(found, Tasks):
        from fleet.worker.apps.registry import RegistryApplication

        return RegistryApplication(found)
    if is_celery(found):
        from fleet.worker.apps.celery import CeleryApplication

        return CeleryApplication(found)
    raise FleetError(
        f"{path!r} is a {type(found).__name__}, not an app",
        hint="name a Celery app or a fleet.Tasks registry, as module:attr",
    )


def is_celery(found: object) -> bool:
    """Whether this is a Celery app, asked without importing Celery: who made one has imported it already."""
    base = sys.modules.get("celery.app.base")
    return base is not None and isinstance(found, base.Celery)


def _attribute(module: object, path: str, attribute: str) -> object:
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = ", ".join(sorted(_apps(module)))
            hint = f"it has {names}" if names else "the module defines no app at all"
            raise FleetError(f"the app {path!r} is not there: no attribute {part!r}", hint=hint) from None
    return found


def _only_app(module: object) -> object | None:
    """The app of a module named without ``:attr``: ``app``, ``celery``, ``tasks``, or the only one there is."""
    apps = _apps(module)
    for name in ("app", "celery", "tasks"):
        if name in apps:
            return apps[name]
    return next(iter(apps.values())) if len(apps) == 1 else None


def _submodule(path: str) -> object:
    """``proj.celery`` for ``proj``: the layout that Celery's documentation shows."""
    try:
        return importlib.import_module(f"{path}.celery")
    except ModuleNotFoundError:
        return None


def _no_app(module: object, path: str) -> object:
    raise FleetError(
        f"the module {path!r} has {len(_apps(module))} apps, and none is named app, celery or tasks",
        hint=f"say which one: {path}:attribute",
    )


def _apps(module: object) -> dict[str, object]:
    return {name: value for name, value in getattr(module, "__dict__", {}).items() if _is_app(value)}


def _is_app(value: object) -> bool:
    from fleet.tasks import Tasks

    return isinstance(value, Tasks) or is_celery(value)


def _import_hint(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"is {error.name!r} installed for {sys.executable}, and is the working directory right? ({os.getcwd()})"
    return "the traceback above is the app's own"
