"""Plans that deploy nothing: replicas are held, stopped, brought back or restarted, each with the spec that it runs.

A replica that does not run what was applied last (a rollout failed, or was cut short) stays what it is. Slots are the
one setting that may change, because an exception to the manifest may be one of slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from fleet.core.desired import Desired, DesiredGroup, Replica, group_of
from fleet.core.observed import GONE, Observed, ObservedReplica
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning.assignment import assign
from fleet.core.planning.planner import plan
from fleet.core.planning.rollout import in_waves
from fleet.core.planning.selection import left_out
from fleet.core.spec import WorkerSpec, digest, live_digest, resizes
from fleet.core.text.format import listed

STOPS = frozenset({Action.DRAIN, Action.STOP, Action.FORGET})


def steered(
    desired: Desired,
    observed: Observed,
    *,
    only: Collection[str],
    actions: Collection[Action] | None = None,
    restart: Collection[str] = (),
) -> Plan:
    """The steps for some groups or replicas, in waves. ``actions``: the only ones meant (None: all)."""
    running = as_it_runs(desired, observed)
    told_apart = {name: one for name, one in _masked(running, observed).items() if one != observed.replicas[name]}
    seen = replace(observed, replicas={**observed.replicas, **told_apart})
    whole = plan(running, seen, restart=frozenset(restart))
    steps = [_with_own_spec(step, observed.replicas.get(step.replica), told_apart) for step in whole.steps]
    meant = tuple(step for step in steps if _is_meant(step, only, actions))
    notes = (*whole.notes, *left_out(whole, meant), *_different(desired, observed))
    return in_waves(replace(whole, steps=meant, notes=notes), running, observed)


def as_it_runs(desired: Desired, observed: Observed) -> Desired:
    """Each group with the spec that most of its replicas run; a group of which none runs, as it is desired."""
    groups = {name: _as_most_run(group, observed) for name, group in desired.groups.items()}
    return replace(desired, groups=groups)


def _as_most_run(group: DesiredGroup, observed: Observed) -> DesiredGroup:
    alive = [one for one in observed.replicas.values() if one.group == group.name and one.state not in GONE]
    counts = Counter(_unsized(one.spec) for one in sorted(alive, key=lambda one: one.index) if one.spec is not None)
    if not counts:
        return group
    most = counts.most_common(1)[0][0]
    if most == _unsized(group.spec) or not _same_sizes(most, group.spec):
        return group
    return replace(group, spec=_sized(most, group.spec.pool.concurrency))


def _same_sizes(one: WorkerSpec, other: WorkerSpec) -> bool:
    """Whether a shape that fits one fits the other: a pool of one slot cannot take over the slots of another."""
    return one.kind == other.kind and one.pool.type == other.pool.type


def _masked(desired: Desired, observed: Observed) -> Mapping[str, ObservedReplica]:
    """Every wanted replica as the planner is to see it: one of another spec seems to have the wanted one."""
    masked = {}
    for group in desired.groups.values():
        seen = [one for one in observed.replicas.values() if one.group == group.name]
        wanted = assign(group, seen).wanted
        masked.update({one.name: _as_wanted(one, wanted[one.index]) for one in seen if one.index in wanted})
    return masked


def _as_wanted(seen: ObservedReplica, wanted: Replica) -> ObservedReplica:
    if seen.spec is not None and _unsized(seen.spec) == _unsized(wanted.spec):
        return seen
    keeps_slots = seen.spec is not None and resizes(seen.spec) and resizes(wanted.spec)
    spec = _sized(wanted.spec, seen.target_slots) if keeps_slots else wanted.spec
    live = live_digest(spec) if seen.live else ""
    return replace(
        seen, digest=digest(spec), spec=spec, live=live, slots=seen.slots if keeps_slots else spec.pool.concurrency
    )


def _with_own_spec(step: Step, seen: ObservedReplica | None, told_apart: Collection[str]) -> Step:
    """Its target is what it runs, whatever the group's spec says; slots alone may be new."""
    if seen is None or step.replica not in told_apart or step.target is None:
        return step
    if seen.spec is None:  # its launch document cannot be read: one of the same digest is written again
        return step if seen.digest == step.target.digest else replace(step, target=None)
    resized = step.action is Action.RESIZE
    spec = _sized(seen.spec, step.target.spec.pool.concurrency) if resized else seen.spec
    return replace(step, target=replace(step.target, spec=spec, digest=seen.digest))


def _is_meant(step: Step, only: Collection[str], actions: Collection[Action] | None) -> bool:
    if step.action is Action.REAP or (step.replica not in only and group_of(step.replica) not in only):
        return False
    return actions is None or step.action in actions or step.action is Action.KEEP


def _different(desired: Desired, observed: Observed) -> list[str]:
    """A person should know that something runs another spec than the one applied last."""
    wanted = {name: _unsized(group.spec) for name, group in desired.groups.items()}
    names = sorted(
        one.name
        for one in observed.replicas.values()
        if one.group in wanted and one.spec is not None and _unsized(one.spec) != wanted[one.group]
    )
    said = f"{listed(names)} {'does' if len(names) == 1 else 'do'} not run what was applied last"
    return [f"{said}; this changes nothing about it, `fleet apply` does"] if names else []


def _unsized(spec: WorkerSpec) -> WorkerSpec:
    return _sized(spec, 1)


def _sized(spec: WorkerSpec, slots: int) -> WorkerSpec:
    return replace(spec, pool=replace(spec.pool, concurrency=slots))
