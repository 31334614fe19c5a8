"""The new revision against the old one: what some new replicas did in a while, beside the old ones on the same queues.

Everything is counted over the same window, from two looks at the same replicas. PURE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet.core.desired import CanaryPolicy
from fleet.core.observed import ObservedReplica
from fleet.core.text.format import counted, listed, size


@dataclass(frozen=True, slots=True)
class Tally:
    """What some replicas did in a window. ``busy_seconds``: spent on runs that ended in it.  ``memory_bytes``: of one
    of them at its end, on average."""

    replicas: int = 0
    done: int = 0
    failed: int = 0
    runs: int = 0
    busy_seconds: float = 0.0
    memory_bytes: float = 0.0
    crashes: int = 0

    @property
    def failure_rate(self) -> float:
        """0 to 1, of the tasks that came to their end."""
        return self.failed / self.done if self.done else 0.0

    @property
    def run_seconds(self) -> float:
        """How long one run took, on average."""
        return self.busy_seconds / self.runs if self.runs else 0.0

    def __str__(self) -> str:
        rate = f"{self.failure_rate:.1%} of {counted(self.done, 'task')} failed"
        took = f"{self.run_seconds:.3g} s a run, {size(round(self.memory_bytes))}"
        return f"{counted(self.replicas, 'replica')}: {rate}, {took}, {counted(self.crashes, 'crash', 'crashes')}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``problems``: what is worse than allowed, one sentence part each; none: it may go on.  name: of the canary."""

    new: Tally
    old: Tally
    problems: tuple[str, ...] = ()
    name: str = "canary"

    @property
    def passed(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        end = f"worse: {listed(self.problems)}" if self.problems else "no worse"
        return f"{self.name}, new {self.new}; old {self.old}: {end}"


def judged(
    policy: CanaryPolicy,
    before: Mapping[str, ObservedReplica],
    after: Mapping[str, ObservedReplica],
    *,
    digest: str,
) -> Verdict:
    """Of one group's replicas at the begin and at the end of the window; the new ones are those with ``digest``."""
    both = [(before[name], after[name]) for name in sorted(before.keys() & after.keys())]
    kept = [(one, other) for one, other in both if one.digest == other.digest]
    new = tally((one, other) for one, other in kept if one.digest == digest)
    old = tally((one, other) for one, other in kept if one.digest != digest)
    return verdict(policy, new, old)


def tally(windows: Iterable[tuple[ObservedReplica, ObservedReplica]]) -> Tally:
    """The sum over replicas, each as it was at the begin and at the end. A process that began in between counted from
    nothing."""
    pairs = [(_fresh(one) if one.pid != other.pid else one, one, other) for one, other in windows]
    if not pairs:
        return Tally()
    return Tally(
        replicas=len(pairs),
        done=sum(max(0, end.processed - begin.processed) for begin, _, end in pairs),
        failed=sum(max(0, end.failed - begin.failed) for begin, _, end in pairs),
        runs=sum(max(0, _runs(end) - _runs(begin)) for begin, _, end in pairs),
        busy_seconds=sum(max(0.0, _ended_seconds(end) - _ended_seconds(begin)) for begin, _, end in pairs),
        memory_bytes=sum(end.memory_bytes for _, _, end in pairs) / len(pairs),
        crashes=sum(max(0, end.crashes - begin.crashes) for _, begin, end in pairs),
    )


def verdict(policy: CanaryPolicy, new: Tally, old: Tally) -> Verdict:
    """Rates are compared once the new replicas have done enough tasks to have one; crashes and memory always."""
    problems = []
    if new.crashes > policy.crashes:
        problems.append(f"{counted(new.crashes, 'crash', 'crashes')}, allowed {policy.crashes}")
    if new.done >= policy.min_tasks:
        allowed = old.failure_rate + policy.failure_rate
        if new.failure_rate > allowed:
            problems.append(f"failure rate {new.failure_rate:.1%}, allowed {allowed:.1%}")
        if old.runs and new.run_seconds > old.run_seconds * policy.latency:
            problems.append(f"{new.run_seconds:.3g} s a run, allowed {old.run_seconds * policy.latency:.3g} s")
    if old.memory_bytes and new.memory_bytes > old.memory_bytes * policy.memory:
        most = round(old.memory_bytes * policy.memory)
        problems.append(f"{size(round(new.memory_bytes))} of memory, allowed {size(most)}")
    return Verdict(new, old, tuple(problems), policy.name)


def _fresh(replica: ObservedReplica) -> ObservedReplica:
    return ObservedReplica(replica.group, replica.index, replica.digest, replica.state)


def _runs(replica: ObservedReplica) -> int:
    """Runs that ended, those in a retry among them."""
    return replica.processed + replica.retried


def _ended_seconds(replica: ObservedReplica) -> float:
    """Without the tasks that run at the moment."""
    return replica.busy_seconds - sum(task.since_seconds for task in replica.tasks)
