"""Arbitrary fleets: what is wanted, what was seen, in any state of disorder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from fleet.core.desired import Budgets, CanaryPolicy, Desired, DesiredGroup, RolloutPolicy
from fleet.core.observed import Observed, ObservedReplica, State, Stray
from fleet.core.planning.assignment import Variants
from fleet.core.spec import QueueSpec, RestartPolicy, TaskPolicy, WorkerSpec, live_digest, resizes
from tests.worlds import FLEET, group

NAMES = ("a", "b", "c")
ORPHAN = "old"
WITHOUT_PROCESS = (State.STOPPED, State.FAILED)


@st.composite
def rollouts(draw: st.DrawFn) -> RolloutPolicy:
    if draw(st.integers(0, 4)) == 0:
        return RolloutPolicy("recreate", 0, 1)
    surge = draw(st.integers(0, 3))
    missing = draw(st.integers(0 if surge else 1, 3))
    shares = sorted(draw(st.sets(st.integers(1, 5), max_size=3)))
    canaries = tuple(CanaryPolicy(share, number=number, of=len(shares)) for number, share in enumerate(shares, 1))
    return RolloutPolicy(
        "rolling", surge, missing, canary=canaries[0] if canaries else None, later_canaries=canaries[1:]
    )


@st.composite
def blue_green(draw: st.DrawFn) -> tuple[Desired, Observed]:
    """A world in which some groups are replaced as a whole."""
    desired, observed = draw(worlds())
    groups = {
        name: replace(
            one, rollout=RolloutPolicy(peak=draw(st.sampled_from(["budget", "surge"])), blue_green=CanaryPolicy())
        )
        if draw(st.booleans())
        else one
        for name, one in sorted(desired.groups.items())
    }
    slots = sum(one.slots for one in groups.values()) + draw(st.integers(0, 12))
    return replace(desired, groups=groups, budgets=Budgets(slots=slots)), observed


@st.composite
def worlds_within_budget(draw: st.DrawFn) -> tuple[Desired, Observed]:
    """A wanted fleet whose groups keep to its slots, which are enough for it at rest; and some other one."""
    desired, observed = draw(worlds())
    groups = {
        name: replace(one, rollout=replace(one.rollout, peak="budget")) for name, one in sorted(desired.groups.items())
    }
    slots = sum(one.slots for one in groups.values()) + draw(st.integers(0, 4))
    return replace(desired, groups=groups, budgets=Budgets(slots=slots)), observed


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    size = draw(st.integers(1, 4))
    smaller = draw(st.integers(0, size - 1))
    return (size,) * draw(st.integers(0, 5)) + ((smaller,) if smaller else ())


@st.composite
def groups(draw: st.DrawFn, name: str) -> DesiredGroup:
    depends = tuple(other for other in NAMES if other < name and draw(st.booleans()))
    made = group(
        name,
        *draw(shapes()),
        pool=draw(st.sampled_from(["solo", "prefork"])),
        env=draw(st.sampled_from([{}, {"A": "1"}, {"A": "2"}])),
        rollout=draw(rollouts()),
        depends_on=depends,
    )
    return replace(made, spec=replace(made.spec, **draw(settings())))


@st.composite
def settings(draw: st.DrawFn) -> dict[str, Any]:
    """What of a spec can change in place, slots apart."""
    return {
        "queues": draw(st.sampled_from([(), (QueueSpec("x"),), (QueueSpec("x"), QueueSpec("y", 3))])),
        "task": draw(st.sampled_from([TaskPolicy(), TaskPolicy(prefetch=2), TaskPolicy(rate_limits=(("t", "1/s"),))])),
        "log_level": draw(st.sampled_from(["INFO", "DEBUG"])),
        "restart": draw(st.sampled_from([RestartPolicy(), RestartPolicy(max_crashes=3)])),
    }


@st.composite
def fleets(draw: st.DrawFn) -> Desired:
    wanted = {name: draw(groups(name)) for name in NAMES if draw(st.integers(0, 3))}
    drained = frozenset(draw(st.sets(st.sampled_from(["a.0", "a.1", "b.2", "c"]), max_size=2)))
    return Desired(FLEET, wanted, drained=drained)


@st.composite
def seen_replicas(draw: st.DrawFn, name: str, wanted: DesiredGroup | None) -> list[ObservedReplica]:
    """Some replicas of a group: as wanted, older, smaller, in any state."""
    older = draw(groups(name))
    choices = [variants for one in (wanted, older) if one is not None and (variants := Variants(one)).specs]
    if not choices:
        return []
    return [draw(_seen(name, index, choices)) for index in sorted(draw(st.sets(st.integers(0, 7), max_size=6)))]


@st.composite
def _seen(draw: st.DrawFn, name: str, index: int, choices: list[Variants]) -> ObservedReplica:
    variants = draw(st.sampled_from(choices))
    slots = draw(st.sampled_from(sorted(variants.specs)))
    state = draw(st.sampled_from([State.READY, State.READY, State.READY, *State]))
    spec = variants.specs[slots]
    in_force = draw(_in_force(spec)) if state not in WITHOUT_PROCESS else spec
    return ObservedReplica(
        name,
        index,
        variants.digest_of[slots],
        state,
        pid=None if state in WITHOUT_PROCESS else 100 + index,
        spec=spec,
        slots=in_force.pool.concurrency,
        busy=draw(st.integers(0, slots)) if state in (State.READY, State.DRAINING) else 0,
        held=draw(st.integers(0, 5)) == 0 and state in (State.READY, State.STOPPED),
        live="" if state in WITHOUT_PROCESS else live_digest(in_force),
    )


@st.composite
def _in_force(draw: st.DrawFn, spec: WorkerSpec) -> WorkerSpec:
    """What a worker with this launch document goes by: mostly this, now and then what somebody told it by hand."""
    if not resizes(spec) or draw(st.integers(0, 3)):
        return spec
    return replace(spec, pool=replace(spec.pool, concurrency=draw(st.integers(1, 5))))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Desired, Observed]:
    """A wanted fleet and some other one that is there, with orphans, strays and foreign programs."""
    desired = draw(fleets())
    seen = [one for name in NAMES for one in draw(seen_replicas(name, desired.groups.get(name)))]
    seen += draw(seen_replicas(ORPHAN, None)) if draw(st.booleans()) else []
    strays = draw(st.lists(st.sampled_from(["a.0", "b.1", "old.0"]), max_size=2))
    return desired, Observed(
        FLEET,
        up=True,
        replicas={one.name: one for one in seen},
        strays=tuple(Stray(9000 + number, name, "orphan") for number, name in enumerate(strays)),
        foreign=("nginx", "a", "a.0x"),
    )


def resized(one: DesiredGroup, *shape: int) -> DesiredGroup:
    """The same group with other replicas."""
    return replace(one, shape=tuple(shape))
