"""Small worlds for tests: desired fleets, what was seen of them, and a walk through a plan, one effect at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from fleet.backends.memory import MemoryBackend
from fleet.core.desired import Desired, DesiredGroup, RolloutPolicy
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning.assignment import assign
from fleet.core.planning.planner import plan
from fleet.core.planning.rollout import in_waves
from fleet.core.spec import PoolSpec, WorkerSpec

FLEET = "shop"


def group(name: str, *shape: int, pool: str = "solo", env: dict[str, str] | None = None, **fields: Any) -> DesiredGroup:
    """A group with these replicas (slots of each)."""
    full = max(shape, default=1)
    spec = WorkerSpec(
        "worker", FLEET, name, pool=PoolSpec(pool, full), app="shop:app", env=tuple(sorted((env or {}).items()))
    )
    fields.setdefault("rollout", RolloutPolicy(max_surge=1, max_unavailable=len(shape) // 4))
    return DesiredGroup(name, fields.pop("spec", spec), tuple(shape), **fields)


def fleet(*groups: DesiredGroup, **fields: Any) -> Desired:
    """A fleet of these groups."""
    return Desired(FLEET, {one.name: one for one in groups}, **fields)


def running(*groups: DesiredGroup) -> Observed:
    """The fleet as it is once these groups were applied."""
    replicas = {}
    for one in groups:
        for wanted in assign(one, ()).wanted.values():
            replicas[wanted.name] = ObservedReplica(
                wanted.group,
                wanted.index,
                wanted.digest,
                State.READY,
                pid=100 + wanted.index,
                spec=wanted.spec,
                slots=wanted.spec.pool.concurrency,
                live=wanted.live if wanted.spec.kind == "worker" else "",
            )
    return Observed(FLEET, up=True, replicas=replicas)


def but(observed: Observed, name: str, **fields: Any) -> Observed:
    """The same world with one replica changed."""
    return replace(observed, replicas={**observed.replicas, name: replace(observed.replicas[name], **fields)})


def without(observed: Observed, *names: str) -> Observed:
    """The same world without these replicas."""
    return replace(observed, replicas={name: one for name, one in observed.replicas.items() if name not in names})


def planned(desired: Desired, observed: Observed, **options: Any) -> Plan:
    """The plan as ``fleet apply`` would carry it out."""
    return in_waves(plan(desired, observed, **options), desired, observed)


def carry_out(todo: Plan, backend: MemoryBackend) -> Iterator[str]:
    """Do a plan on a stepwise backend, stopping after every effect; a wave stops all, then starts."""
    if not todo.is_empty:
        backend.up = True
    for _, wave in groupby(todo.changes, key=lambda step: step.wave):
        yield from _wave(list(wave), backend)


def _wave(steps: list[Step], backend: MemoryBackend) -> Iterator[str]:
    for step in steps:
        yield from _first_half(step, backend)
    backend.settle()
    yield "settled"
    for step in steps:
        yield from _second_half(step, backend)
    backend.settle()
    yield "settled"


def _first_half(step: Step, backend: MemoryBackend) -> Iterator[str]:
    if step.action is Action.START:
        assert step.target is not None
        backend.start([step.target], secrets={})
    elif step.action is Action.REAP:
        assert step.pid is not None
        backend.reap([step.pid])
    elif step.action in {Action.HOLD, Action.RELEASE}:
        backend.hold([step.replica], on=step.action is Action.HOLD)
    elif step.action is Action.RESIZE:
        assert step.target is not None
        backend.resize([step.target], secrets={})
    else:
        backend.work(step.replica, 0)
        backend.stop([step.replica])
    yield step.id


def _second_half(step: Step, backend: MemoryBackend) -> Iterator[str]:
    if step.action in {Action.DRAIN, Action.STOP, Action.FORGET}:
        backend.forget([step.replica])
    elif step.action is Action.RESTART:
        assert step.target is not None
        backend.resize([step.target], secrets={})
        backend.run_again([step.replica])
    elif step.action is Action.REPLACE:
        assert step.target is not None
        backend.forget([step.replica])
        yield f"forgot {step.replica}"
        backend.start([step.target], secrets={})
    else:
        return
    yield f"{step.id}, second half"


def apply(todo: Plan, backend: MemoryBackend) -> None:
    """Do a plan to its end."""
    for _ in carry_out(todo, backend):
        pass
