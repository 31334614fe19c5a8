"""A control on a consumer that is driven by hand, for an app that is nobody's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kombu.clocks import LamportClock

from fleet.core.spec import RemoteControlSpec
from fleet.worker.process import make_control
from tests.worker.loop.test_consumer import World

NODE = "f.g.0@here"


class PlainRemote:
    """What a Celery app would say of itself."""

    namespace = "celery"
    event_exchange = "celeryev"
    sends_task_events = False
    queue_options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.clock = LamportClock()
        self.rates: dict[str, object] = {}
        self.heartbeats = 0
        self.defined: dict[str, dict[str, str]] = {}

    def settings(self, *, with_defaults: bool) -> dict[str, Any]:
        return {"task_acks_late": True} if with_defaults else {}

    def report(self) -> str:
        return "software -> celery:5.7.0"

    def task_details(self, name: str, items: Sequence[str]) -> dict[str, str]:
        return {item: name for item in items if item == "name"}

    def set_rate_limit(self, name: str, rate: object) -> None:
        self.rates[name] = rate

    def on_heartbeat(self) -> bool:
        self.heartbeats += 1
        return True

    def own_commands(self, node: str) -> Mapping[str, Callable[..., Any]]:
        return {"where": lambda: node}

    def define_queue(self, name: str, **bound: str) -> None:
        self.defined[name] = bound


class Steered:
    """A world and its control, without a wire."""

    def __init__(self, world: World, **bounds: Any) -> None:
        """bounds: fields of the worker's RemoteControlSpec."""
        self.world = world
        self.remote = PlainRemote()
        options = world.parts.options
        spec = replace(options.spec, remote_control=RemoteControlSpec(**bounds))
        world.parts.options = replace(options, spec=spec)
        self.control = make_control(world.parts, "memory://", NODE, remote=self.remote, loop=world.loop)

    def ask(self, method: str, **arguments: Any) -> Any:
        """The reply to one command; what was to happen after it has happened."""
        reply = self.control.answer(method, arguments)
        afterwards, self.control.commands.afterwards[:] = list(self.control.commands.afterwards), []
        for work in afterwards:
            work()
        return reply

    def tasks(self, method: str) -> list[str]:
        """Ids in the answer to ``active``, ``reserved`` or ``scheduled``."""
        return [entry.get("request", entry)["id"] for entry in self.ask(method)]
