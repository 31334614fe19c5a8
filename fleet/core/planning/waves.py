"""Stages of steps that wait for each other, and the wave each of them falls into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from fleet.core.plan import Step


@dataclass(eq=False, slots=True)
class Stage:
    """Steps that may run together once every stage in ``after`` is done."""

    steps: list[Step]
    after: list[Stage] = field(default_factory=list)
    wave: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(step.id for step in self.steps)


def chained(stages: Sequence[list[Step]]) -> list[Stage]:
    """The non-empty ones as stages, each after the one before."""
    chain: list[Stage] = []
    for steps in stages:
        if steps:
            chain.append(Stage(steps, chain[-1:]))
    return chain


def scheduled(stages: Sequence[Stage]) -> Iterator[Step]:
    """Every step with its wave (as early as it can be) and the ids it waits for."""
    for stage in _in_order(stages):
        stage.wave = max((before.wave + 1 for before in stage.after), default=0)
        after = tuple(mark for before in stage.after for mark in before.ids)
        for step in stage.steps:
            yield replace(step, wave=stage.wave, after=after)


def _in_order(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Every stage after those it waits for. Not recursive: a careful rollout is a chain of a thousand."""
    waiting = {stage: len(stage.after) for stage in stages}
    followers: dict[Stage, list[Stage]] = {stage: [] for stage in stages}
    for stage in stages:
        for before in stage.after:
            followers[before].append(stage)
    free = [stage for stage in stages if not waiting[stage]]
    for stage in free:
        yield stage
        for follower in followers[stage]:
            waiting[follower] -= 1
            if not waiting[follower]:
                free.append(follower)
    if len(free) < len(stages):
        raise ValueError("stages wait for each other in a circle")
