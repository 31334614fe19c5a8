"""Options, events, report and errors of a walk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fleet.core.observed import Observed
from fleet.core.plan import Plan, Step
from fleet.core.text.format import counted
from fleet.errors import Interrupted, NotReady, RolloutFailed
from fleet.state.rollout_orders import NO_ORDERS, RolloutOrders

_LISTED = 10

STARTS_PER_CORE = 4
"""How many workers a walk or a look starts at once, per processor."""

Phase = Literal["planned", "started", "compared", "judged", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a step. ``seconds`` counts from the start of the walk; ``reason`` is for people."""

    phase: Phase
    step: Step
    reason: str
    seconds: float


Listener = Callable[[Sequence[Event]], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a walk did. ``observed`` is the last observation.  warnings: what people must know besides."""

    done: tuple[Step, ...]
    seconds: float
    observed: Observed
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """How one walk is made.

    timeout_seconds: give up waiting after this long (None: never); what was asked for goes on.
    wait: also wait until what was started, or kept, is ready.
    passing: wait for nothing: ask once and leave the rest to the next look.
    starts_at_once: workers that may start together (None: all). Importing an app is processor work: a
        hundred at once would make each of them late and starve the tasks that run.
    interrupted: the number of a signal that asked us to stop, or 0.
    orders: what people tell this walk while it goes on.
    now, sleep: a monotonic clock in seconds, and how to wait by it.
    """

    timeout_seconds: float | None = None
    wait: bool = True
    passing: bool = False
    starts_at_once: int | None = None
    interrupted: Callable[[], int] = lambda: 0
    orders: Callable[[], RolloutOrders] = lambda: NO_ORDERS
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class StepsFailed(RolloutFailed):
    """Steps of a rollout failed; the rest was not begun.

    failures: each step with its reason.  aborted: by whom and why, where a person ended it: then no step failed, and
    it goes back whatever the manifest says about failures.
    """

    def __init__(self, message: str, *, hint: str, failures: Sequence[tuple[Step, str]], aborted: str = "") -> None:
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)
        self.aborted = aborted


def steps_failed(plan: Plan, failures: Sequence[tuple[Step, str]], *, done: int) -> StepsFailed:
    """The error of a rollout that stopped. ``done``: how many changes of the plan were made."""
    lines = "\n".join(f"  {step.id}: {reason}" for step, reason in failures[:_LISTED])
    more = f"\n  and {len(failures) - _LISTED} more" if len(failures) > _LISTED else ""
    left = len(plan.changes) - done - len(failures)
    rest = f", {counted(left, 'step')} {'was' if left == 1 else 'were'} not begun" if left > 0 else ""
    logs = f"fleet logs {failures[0][0].replica} -n 50 --fleet {plan.fleet}"
    return StepsFailed(
        f"the rollout failed and is paused{rest}:\n{lines}{more}",
        hint=f"see `{logs}`; fix the cause and run the same command again",
        failures=failures,
    )


def steps_aborted(plan: Plan, *, done: int, why: str) -> StepsFailed:
    """The error of a rollout that a person ended. ``why``: by whom, and the reason."""
    return StepsFailed(
        f"the rollout was aborted {why}; it is paused after {done} of {len(plan.changes)} steps",
        hint="see `fleet rollout status`; apply another manifest, or this one with --retry",
        failures=(),
        aborted=why,
    )


def not_ready(plan: Plan, late: Sequence[tuple[str, str]], head: str = "the fleet is not ready") -> NotReady:
    """The error of a wait that was given up. ``late``: each replica that is not ready, with its state."""
    lines = [f"  {replica}{condition}" for replica, condition in late[:_LISTED]]
    more = [f"  and {len(late) - _LISTED} more"] if len(late) > _LISTED else []
    name = late[0][0] if late else ""
    return NotReady(
        "\n".join([f"{head}; still waiting for:" if late else head, *lines, *more]),
        hint=f"see `fleet logs {name} --fleet {plan.fleet}`; run the same command again to go on waiting",
    )


def interrupted(plan: Plan, *, done: int, signum: int) -> Interrupted:
    """The error of a walk that a signal ended."""
    return Interrupted(
        f"interrupted after {done} of {len(plan.changes)} steps",
        hint="run the same command again to resume",
        signum=signum,
    )
