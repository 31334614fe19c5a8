"""What remote control and events need of a Celery app: names, settings with their secrets hidden, tasks, clock."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from celery import signals
from celery.utils.collections import AttributeDict
from celery.utils.serialization import jsonify
from kombu.utils.encoding import safe_repr

from fleet.core.text.mask import looks_secret, masked, masked_text

_SECRET = re.compile(r"api|token|key|secret|pass|signature|credential|dburi", re.IGNORECASE)
_HIDDEN = "********"
_PANEL = "celery.worker.control"


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
        """The app's settings as Celery's worker puts them into JSON. Secrets are hidden, in URLs and in options too."""
        table = self._app.conf.table(with_defaults=with_defaults)
        plain = jsonify(table, keyfilter=_is_setting, unknown_type_filter=safe_repr)
        return {name: _shown(name, value) for name, value in sorted(plain.items())}

    def report(self) -> str:
        """Versions and settings, as Celery's bug reports have them."""
        return masked_text(str(self._app.bugreport()))

    def task_details(self, name: str, items: Sequence[str]) -> dict[str, str]:
        """These attributes of a task, as far as they are set."""
        task = self._app.tasks[name]
        found = {item: getattr(task, item, None) for item in items if not item.startswith("_")}
        return {item: str(value) for item, value in found.items() if value is not None}

    def set_rate_limit(self, name: str, rate: object) -> None:
        """Set it on the task, so that ``inspect registered`` shows it."""
        self._app.tasks[name].rate_limit = rate

    def on_heartbeat(self) -> bool:
        """Celery's signal, whether or not a monitor hears the heartbeat; the sender is fleet's own."""
        return bool(signals.heartbeat_sent.send(sender=self))

    def own_commands(self, node: str) -> Mapping[str, Callable[..., Any]]:
        """What the app registered with ``@control_command`` and ``@inspect_command``.

        Their ``state`` has the app and the name of the worker. There is no consumer of Celery's to reach through it.
        """
        panel = sys.modules.get(_PANEL)  # an app that registers a command has imported it
        if panel is None:
            return {}
        state = AttributeDict(app=self._app, hostname=node)
        found = panel.Panel.data.items()
        return {name: partial(command, state) for name, command in found if command.__module__ != _PANEL}

    def define_queue(self, name: str, *, exchange: str, exchange_type: str, routing_key: str) -> None:
        """As a worker of Celery's that is told to consume from it."""
        queues = self._app.amqp.queues
        if name not in queues:
            queues.add(name, exchange=exchange, exchange_type=exchange_type, routing_key=routing_key)


def _is_setting(name: object) -> bool:
    return isinstance(name, str) and not name.startswith("__")


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, str) and (_SECRET.search(name) or looks_secret(name)) and name != "routing_key":
        return _HIDDEN
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {str(key): _shown(str(key), entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown(name, entry) for entry in value]
    return masked_text(repr(value))
