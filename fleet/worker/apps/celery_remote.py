"""What remote control and events need of a Celery app: names, settings with their secrets hidden, tasks, clock."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from celery import signals

from fleet.broker.connection import masked

_SECRET = re.compile(r"api|token|key|secret|pass|signature|credential|dburi", re.IGNORECASE)
_HIDDEN = "********"


class CeleryRemote:
    """The side of a Celery app that faces ``celery inspect``, ``celery control`` and monitors."""

    def __init__(self, app: Any) -> None:
        conf = app.conf
        self._app = app
        self.namespace = str(conf.control_exchange)
        self.event_exchange = str(conf.event_exchange)
        self.sends_task_events = bool(conf.worker_send_task_events)
        self.clock: Any = app.clock
        self.queue_options: Mapping[str, Any] = {
            "queue_ttl": conf.control_queue_ttl,
            "queue_expires": conf.control_queue_expires,
            "queue_exclusive": conf.control_queue_exclusive,
            "queue_durable": conf.control_queue_durable,
        }

    def settings(self, *, with_defaults: bool) -> dict[str, Any]:
        """The app's settings as JSON can carry them. Secrets are hidden, in URLs and in options too."""
        conf = self._app.conf
        table = conf.table(with_defaults=with_defaults) | {
            "include": sorted({*conf.include, *(task.__class__.__module__ for task in self._app.tasks.values())}),
            "worker_disable_prefetch": getattr(conf, "worker_disable_prefetch", False),
        }
        return {str(name): _shown(str(name), value) for name, value in sorted(table.items())}

    def report(self) -> str:
        """What Celery's bug reports want."""
        return masked(str(self._app.bugreport()))

    def task_details(self, name: str, items: Sequence[str]) -> dict[str, str]:
        """These attributes of a task, as far as they are set."""
        task = self._app.tasks[name]
        found = {item: getattr(task, item, None) for item in items if not item.startswith("_")}
        return {item: str(value) for item, value in found.items() if value is not None}

    def set_rate_limit(self, name: str, rate: object) -> None:
        """So that ``inspect registered`` shows it."""
        self._app.tasks[name].rate_limit = rate

    def command(self, name: str, node: str) -> Callable[..., Any] | None:
        """What the app registered with ``@control_command`` or ``@inspect_command``, and Celery's ``memsample``."""
        if name == "memsample":
            return _resident_memory
        control = sys.modules.get("celery.worker.control")  # imported by an app that has commands, and by no other
        found = control.Panel.data.get(name) if control is not None else None
        if found is None or found.__module__ == "celery.worker.control":
            return None
        return partial(found, _PanelState(self._app, node))

    def on_heartbeat(self) -> None:
        """Celery's signal; the sender is fleet's own."""
        signals.heartbeat_sent.send(sender=self)


class _PanelState:
    """What a command gets first. Of Celery's worker only the app and the name of the node exist here."""

    def __init__(self, app: Any, node: str) -> None:
        self.app = app
        self.hostname = node

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"fleet's worker has no {name!r}: a command may use state.app and state.hostname")


def _resident_memory(**_: Any) -> Any:
    from celery.utils.debug import sample_mem

    return sample_mem()


def _shown(name: str, value: Any) -> Any:
    if _SECRET.search(name) and isinstance(value, str):
        return _HIDDEN
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {str(key): _shown(str(key), entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(name, entry) for entry in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return masked(str(value) if isinstance(value, timedelta) else repr(value))
