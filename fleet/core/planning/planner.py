"""Desired and observed fleet to a plan: an ordered table of rules, the first that matches decides.

What fleet does not own is not among the observation's replicas, and so in no plan. Waves are the work of
:mod:`fleet.core.planning.rollout`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from fleet.core.desired import Desired, DesiredGroup
from fleet.core.observed import Observed, ObservedReplica, State, Stray
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning import reasons
from fleet.core.planning.assignment import Variants
from fleet.core.planning.pair import Pair, pairs
from fleet.core.spec import WorkerSpec, live_digest
from fleet.core.text.format import counted, listed


@dataclass(frozen=True, slots=True)
class Rule:
    """When it matches, this is done, for this reason."""

    when: Callable[[Pair], bool]
    action: Action
    reason: str | Callable[[Pair], str]

    def why(self, pair: Pair) -> str:
        return self.reason if isinstance(self.reason, str) else self.reason(pair)


RULES = (
    Rule(Pair.is_kept_orphan, Action.KEEP, "not in the manifest"),
    Rule(Pair.is_unwanted_and_gone, Action.FORGET, reasons.leaving),
    Rule(Pair.is_unwanted, Action.DRAIN, reasons.leaving),
    Rule(Pair.is_missing, Action.START, reasons.new),
    Rule(Pair.is_outdated, Action.REPLACE, reasons.outdated),
    Rule(Pair.is_parked, Action.RESTART, reasons.parked),
    Rule(Pair.is_unable_to_start, Action.RESTART, reasons.unable_to_start),
    Rule(Pair.is_stopped, Action.START, reasons.stopped),
    Rule(Pair.is_stuck, Action.RESTART, reasons.stuck),
    Rule(Pair.is_leaving, Action.RESTART, "it is leaving, and wanted"),
    Rule(Pair.is_to_restart, Action.RESTART, reasons.restarted),
    Rule(Pair.is_to_resize, Action.RESIZE, reasons.resized),
    Rule(Pair.is_to_hold, Action.HOLD, reasons.HELD),
    Rule(Pair.is_to_release, Action.RELEASE, reasons.RELEASED),
    Rule(Pair.is_anything, Action.KEEP, "up to date"),
)

STARTS_AGAIN = frozenset({Action.START, Action.REPLACE, Action.RESTART})
KEEPS_HOLD = frozenset({Action.START, Action.RESTART})
"""The steps after which a replica is still held if it was: its record stays, and a restart carries the hold over."""


def plan(
    desired: Desired,
    observed: Observed,
    *,
    prune: bool = False,
    restart: frozenset[str] = frozenset(),
    kept: bool = True,
) -> Plan:
    """Every step from observed to desired, not yet in waves.

    prune: drain groups that left the manifest, too.  restart: replicas or groups to restart though nothing changed.
    kept: it may be carried out later; one that is carried out at once or never needs no fingerprint.
    """
    every = pairs(desired, observed, prune=prune, restart=restart)
    ruled = [(pair, _rule(pair)) for pair in every]
    strays = sorted(observed.strays, key=lambda stray: (stray.replica, stray.pid))
    steps = [*(_reap(stray) for stray in strays), *(_decided(pair, rule) for pair, rule in ruled)]
    steps += [_hold(pair, rule) for pair, rule in ruled if pair.hold and rule.action in STARTS_AGAIN]
    steps += [_release(pair) for pair, rule in ruled if pair.is_to_release() and rule.action in KEEPS_HOLD]
    steps += [step for pair, rule in ruled if rule.action is Action.RESIZE for step in _held_or_not(pair)]
    return Plan(
        fleet=desired.fleet,
        steps=tuple(steps),
        notes=(*desired.notes, *_orphan_notes(every), *_trouble_notes(ruled), *_code_notes(every)),
        observed_fingerprint=fingerprint(desired, observed) if kept else "",
    )


def fingerprint(desired: Desired, observed: Observed) -> str:
    """Changes when a plan made of these two would not hold any more; counters, pids and tasks do not change it."""
    facts = {
        "wanted": [[name, *_group_facts(group)] for name, group in sorted(desired.groups.items())],
        "drained": sorted(desired.drained),
        "seen": sorted(_seen_facts(replica) for replica in observed.replicas.values()),
        "strays": sorted(stray.pid for stray in observed.strays),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _group_facts(group: DesiredGroup) -> list[object]:
    variants = Variants(group)
    digests = [[slots, mark, live_digest(variants.specs[slots])] for slots, mark in sorted(variants.digest_of.items())]
    return [digests, list(group.shape), asdict(group.rollout), list(group.depends_on)]


def _seen_facts(replica: ObservedReplica) -> list[object]:
    said = live_digest(replica.spec) if replica.spec is not None else ""
    marks = [replica.digest, said, replica.live or said]
    stuck = Pair(replica.index, replica.group, seen=replica).is_stuck()
    return [replica.name, *marks, replica.running, replica.state is State.FAILED, replica.held, *(["stuck"] * stuck)]


def _rule(pair: Pair) -> Rule:
    return next(rule for rule in RULES if rule.when(pair))


def _decided(pair: Pair, rule: Rule) -> Step:
    return Step(
        action=rule.action,
        replica=pair.name,
        reason=rule.why(pair),
        target=pair.wanted,
        grace_seconds=0.0 if rule.action is Action.RESIZE and not pair.gives_up_slots else pair.grace_seconds,
        ready_timeout_seconds=pair.group.ready_timeout_seconds if pair.group else 0.0,
        min_ready_seconds=pair.group.rollout.min_ready_seconds if pair.group else 0.0,
        deadline_seconds=pair.group.rollout.deadline_seconds if pair.group else None,
    )


def _hold(pair: Pair, rule: Rule) -> Step:
    """A replica that should take no work is held again once it has started again."""
    return Step(Action.HOLD, pair.name, reasons.HELD, target=pair.wanted, after=(f"{rule.action} {pair.name}",))


def _release(pair: Pair) -> Step:
    return Step(Action.RELEASE, pair.name, reasons.RELEASED, target=pair.wanted)


def _held_or_not(pair: Pair) -> Iterator[Step]:
    """What is resized may be about to take work, or none, as well: neither waits for the other."""
    if pair.is_to_hold():
        yield Step(Action.HOLD, pair.name, reasons.HELD, target=pair.wanted)
    if pair.is_to_release():
        yield _release(pair)


def _reap(stray: Stray) -> Step:
    return Step(Action.REAP, stray.replica, reasons.stray(stray), pid=stray.pid)


def _trouble_notes(ruled: Sequence[tuple[Pair, Rule]]) -> Iterator[str]:
    """What is as wanted, is left alone, and does not work."""
    for pair, rule in ruled:
        if pair.seen is not None and pair.seen.trouble and rule.action is Action.KEEP:
            yield f"{pair.name} does not work: {reasons.stuck(pair)}"


def _code_notes(every: Sequence[Pair]) -> tuple[str, ...]:
    """Which code runs, and which will, where the manifest watches it."""
    wanted = Counter(_code(pair.wanted.spec) for pair in every if pair.wanted is not None and pair.wanted.spec.code)
    if not wanted:
        return ()
    runs = Counter(_code(pair.seen.spec) for pair in every if pair.seen is not None and pair.seen.spec is not None)
    runs.pop("", None)
    now = listed(f"{counted(count, 'replica')} on {code}" for code, count in sorted(runs.items()))
    return (f"code: {listed(sorted(wanted))}; now {now or 'nothing'}",) if runs != wanted else (f"code: {now}",)


def _code(spec: WorkerSpec) -> str:
    return f"{spec.code} with fleet {spec.fleet_version}" if spec.code else ""


def _orphan_notes(every: Sequence[Pair]) -> tuple[str, ...]:
    """What the plan leaves alone and a person should know."""
    counts: dict[str, int] = {}
    for pair in every:
        if pair.is_kept_orphan():
            counts[pair.group_name] = counts.get(pair.group_name, 0) + 1
    return tuple(
        f"{counted(count, 'replica')} of '{name}' {'is' if count == 1 else 'are'} not in the manifest;"
        f" add --prune to remove {'it' if count == 1 else 'them'}"
        for name, count in sorted(counts.items())
    )
