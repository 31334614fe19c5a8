"""Replicas that a walk brought up, looked at until it ends: none may crash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fleet.core.observed import Observed, ObservedReplica
from fleet.core.plan import Action, Step
from fleet.operate.apply.effects import RUNS, Life, crash_after_ready

_ENDS = frozenset({Action.DRAIN, Action.STOP, Action.REPLACE, Action.RESTART})


@dataclass(slots=True)
class Watch:
    """``ready``: by name, the step that brought it up, its life, and when it was ready, by the clock of the walk."""

    ready: dict[str, tuple[Step, Life, float]] = field(default_factory=dict)

    def add(self, step: Step, replica: ObservedReplica | None, *, since: float) -> None:
        """A step is done, ``since`` when it has been ready; one that brings nothing up is not watched.

        A command may be one that ends and is run again all day, so it is watched only where ``minReady`` says how long
        it must live.
        """
        is_command = step.target is not None and step.target.spec.kind == "command"
        if step.action in RUNS and replica is not None and (step.min_ready_seconds or not is_command):
            self.ready[step.replica] = (step, Life.of(replica), since)

    def begin(self, step: Step) -> None:
        """What is stopped on purpose is not watched any more."""
        if step.action in _ENDS:
            self.ready.pop(step.replica, None)

    def crashed(self, seen: Observed, *, now: float) -> Iterator[tuple[Step, str]]:
        """Each step whose replica has crashed, once, with what to say of it."""
        for name, (step, life, since) in list(self.ready.items()) if seen.up else ():
            if reason := crash_after_ready(life, seen.replicas.get(name), seconds=now - since):
                del self.ready[name]
                yield step, reason
