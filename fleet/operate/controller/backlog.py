"""What waits at the broker of a fleet, asked once per app: apps may lay out their queues differently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from fleet.core.autoscale.sample import Backlog
from fleet.core.desired import Desired, broker_of
from fleet.errors import FleetError, UsageError
from fleet.inputs import facts


class Source(Protocol):
    """Where the length of queues is asked."""

    def sample(self, queues: list[str]) -> Backlog: ...
    def close(self) -> None: ...


Connect = Callable[[str, Mapping[str, Any]], Source]
"""From a broker's URL and an app's transport options to a source."""


class HasSecrets(Protocol):
    """What knows the values of the manifest's secrets."""

    def secrets(self) -> Mapping[str, str]:
        """Name -> value."""
        ...


class BacklogReader:
    """Asks for one revision; its connections stay open until ``close``."""

    def __init__(self, revision: HasSecrets, connect: Connect) -> None:
        self._revision = revision
        self._connect = connect
        self._sources: dict[str, Source] = {}

    def close(self) -> None:
        """Close the connections."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    def read(self, desired: Desired, groups: Iterable[str]) -> Backlog:
        """All queues of these groups. What could not be learned is missing, and ``problem`` says why."""
        by_app: dict[str, set[str]] = {}
        for name in groups:
            spec = desired.groups[name].spec
            by_app.setdefault(spec.app, set()).update(queue.name for queue in spec.queues)
        samples = [self._sample(app, sorted(queues), desired) for app, queues in sorted(by_app.items()) if queues]
        return _together(samples)

    def _sample(self, app: str, queues: list[str], desired: Desired) -> Backlog:
        try:
            if app not in self._sources:
                self._sources[app] = self._connect(self._broker_url(desired), self._transport_options(app, desired))
            return self._sources[app].sample(queues)
        except FleetError as error:
            return Backlog({}, None, error.message)

    def _transport_options(self, app: str, desired: Desired) -> Mapping[str, Any]:
        """How the app lays out its queues at the broker; a command has no app.

        Raises FleetError where it cannot be asked: the length of a wrong key would always be 0, which is worse
        than no length at all.
        """
        if not app:
            return {}
        spec = next(group.spec for _, group in sorted(desired.groups.items()) if group.spec.app == app)
        hidden = [(variable, self._revision.secrets()[name]) for variable, name, _ in spec.secret_env]
        answer = facts.probe(app, python=spec.python, workdir=spec.workdir, env=(*spec.env, *hidden))
        options: Mapping[str, Any] = answer.get("transportOptions") or {}
        return options

    def _broker_url(self, desired: Desired) -> str:
        broker = broker_of(desired)
        if broker is None:
            raise UsageError("the manifest names no broker")
        return self._revision.secrets()[broker.secret] if broker.secret else broker.url


def _together(samples: list[Backlog]) -> Backlog:
    """One backlog from several: the same broker, asked once per app."""
    queues = {name: one for sample in samples for name, one in sample.queues.items()}
    held: dict[str, int] = {}
    for sample in samples:
        held |= {name: max(count, held.get(name, 0)) for name, count in (sample.held or {}).items()}
    told = any(sample.held is not None for sample in samples)
    problem = next((sample.problem for sample in samples if sample.problem), "")
    return Backlog(queues, held if told else None, problem)
