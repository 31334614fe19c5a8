"""Desired and observed fleet to a plan: an ordered table of rules, the first that matches decides.

What fleet does not own is not among the observation's replicas, and so in no plan. Waves are the work of
:mod:`fleet.core.rollout`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from fleet.core import reasons
from fleet.core.assignment import Variants
from fleet.core.case import Case, cases
from fleet.core.desired import Desired, DesiredGroup
from fleet.core.observed import Observed, ObservedReplica, State, Stray
from fleet.core.plan import Action, Plan, Step
from fleet.core.spec import live_digest
from fleet.core.wording import counted


@dataclass(frozen=True, slots=True)
class Rule:
    """When it matches, this is done, for this reason."""

    when: Callable[[Case], bool]
    action: Action
    reason: str | Callable[[Case], str]

    def why(self, case: Case) -> str:
        """The reason, for this replica."""
        return self.reason if isinstance(self.reason, str) else self.reason(case)


RULES = (
    Rule(Case.is_kept_orphan, Action.KEEP, "not in the manifest"),
    Rule(Case.is_unwanted_and_gone, Action.FORGET, reasons.leaving),
    Rule(Case.is_unwanted, Action.DRAIN, reasons.leaving),
    Rule(Case.is_missing, Action.START, reasons.new),
    Rule(Case.is_outdated, Action.REPLACE, reasons.outdated),
    Rule(Case.is_parked, Action.RESTART, reasons.parked),
    Rule(Case.is_stopped, Action.START, reasons.stopped),
    Rule(Case.is_leaving, Action.RESTART, "it is on its way out, and wanted"),
    Rule(Case.is_to_restart, Action.RESTART, "restart asked for"),
    Rule(Case.is_to_resize, Action.RESIZE, reasons.resized),
    Rule(Case.is_to_hold, Action.HOLD, reasons.HELD),
    Rule(Case.is_to_release, Action.RELEASE, reasons.RELEASED),
    Rule(Case.is_anything, Action.KEEP, "up to date"),
)

RUNS_ANEW = frozenset({Action.START, Action.REPLACE, Action.RESTART})


def plan(desired: Desired, observed: Observed, *, prune: bool = False, restart: frozenset[str] = frozenset()) -> Plan:
    """Every step from observed to desired, not yet in waves.

    prune: drain groups that left the manifest, too.  restart: replicas or groups to run anew though nothing changed.
    """
    every = cases(desired, observed, prune=prune, restart=restart)
    strays = sorted(observed.strays, key=lambda stray: (stray.replica, stray.pid))
    steps = [*(_reap(stray) for stray in strays), *(_decided(case) for case in every)]
    steps += [_hold(case) for case in every if case.hold and _rule(case).action in RUNS_ANEW]
    steps += [step for case in every if _rule(case).action is Action.RESIZE for step in _held_or_not(case)]
    return Plan(
        fleet=desired.fleet,
        steps=tuple(steps),
        notes=(*desired.notes, *_orphan_notes(every)),
        observed_fingerprint=fingerprint(desired, observed),
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
    return [replica.name, *marks, replica.running, replica.state is State.FAILED, replica.held]


def _rule(case: Case) -> Rule:
    return next(rule for rule in RULES if rule.when(case))


def _decided(case: Case) -> Step:
    rule = _rule(case)
    return Step(
        action=rule.action,
        replica=case.name,
        reason=rule.why(case),
        target=case.wanted,
        grace_seconds=0.0 if rule.action is Action.RESIZE and not case.gives_up_slots else case.grace_seconds,
        ready_timeout_seconds=case.group.ready_timeout_seconds if case.group else 0.0,
    )


def _hold(case: Case) -> Step:
    """A replica that should take no work is told so again once it runs anew."""
    return Step(Action.HOLD, case.name, reasons.HELD, target=case.wanted, after=(f"{_rule(case).action} {case.name}",))


def _held_or_not(case: Case) -> Iterator[Step]:
    """What is resized may be about to take work, or none, as well: neither waits for the other."""
    if case.is_to_hold():
        yield Step(Action.HOLD, case.name, reasons.HELD, target=case.wanted)
    if case.is_to_release():
        yield Step(Action.RELEASE, case.name, reasons.RELEASED, target=case.wanted)


def _reap(stray: Stray) -> Step:
    return Step(Action.REAP, stray.replica, reasons.stray(stray), pid=stray.pid)


def _orphan_notes(every: Sequence[Case]) -> tuple[str, ...]:
    """What the plan leaves alone and a person should know."""
    counts: dict[str, int] = {}
    for case in every:
        if case.is_kept_orphan():
            counts[case.group_name] = counts.get(case.group_name, 0) + 1
    return tuple(
        f"{counted(count, 'replica')} of '{name}' {'is' if count == 1 else 'are'} not in the manifest;"
        f" add --prune to remove {'it' if count == 1 else 'them'}"
        for name, count in sorted(counts.items())
    )
