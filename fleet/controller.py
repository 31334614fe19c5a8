"""Moves the slots of the groups that autoscale: one look at the world, one decision, one short walk, again and again.

A look observes replicas and queues, decides with :mod:`fleet.core.autoscale`, and begins what can be begun at once: by
the same plan, lock and backend as ``apply``. It waits for nothing; the next look takes up whatever is not done. What it
decided is on the disk before the first step, so that it may be killed at any moment, and an apply goes by the same
numbers. What it remembers of earlier looks may be lost: then no group shrinks for a minute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fleet import decisions, machine, secrets, wanted
from fleet.apply import Terms, apply
from fleet.broker.samples import BrokerSample, Sampler
from fleet.core.autoscale import EMPTY, Decision, Memory, affordable, decide
from fleet.core.desired import Desired, broker_of
from fleet.core.expand import divided_anew, has_controller, standing_specs, static_division
from fleet.core.facts import Overrides
from fleet.core.moves import begun, in_rollout, starting
from fleet.core.moving import Moving, moving, without
from fleet.core.observed import Observed
from fleet.core.pace import estimated_age_seconds
from fleet.core.plan import Action, Plan
from fleet.core.planner import plan
from fleet.core.samples import Meter, Sample
from fleet.core.sampling import Backlog, Sight, sights
from fleet.core.specs import secret_variable, secrets_of
from fleet.core.wording import listed
from fleet.errors import FleetError, LockHeld, UsageError
from fleet.files import write_whole
from fleet.session import Session
from fleet.standing import Standing
from fleet.wanted import Wanted

FORMAT = 1
STARTS_PER_CORE = 4
LONGEST_PAUSE_SECONDS = 30.0
_ALIVE = frozenset({Action.RESIZE, Action.RELEASE, Action.FORGET})
IDLE_SECONDS = 5.0
"""Between two looks at a fleet that has nothing to move."""

LOOKS_PER_TICK = 4
HURRIED_TICKS = 3
"""Slots that are being given up are gone long before a tick is over, unless a task runs in them. So while somebody
waits for some, for so many ticks in a row there are looks between them, which follow what the last tick decided."""


class Source(Protocol):
    """Where the length of queues is asked."""

    def sample(self, queues: list[str]) -> BrokerSample: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw and decided.

    asked: slots per group that are asked for now; what a group gets beyond that waits until others have let go.
    steps: what was begun.  paced: replicas that are to start and wait, so that not all start at once.  note: why
    nothing could be done, or what stood in the way.
    """

    at: float
    tick_seconds: float
    budget: int = 0
    decision: Decision | None = None
    sights: Mapping[str, Sight] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    paced: int = 0
    note: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether somebody gets slots that others have still to let go, or that are not begun yet."""
        gets = self.decision.slots if self.decision is not None else {}
        return self.paced > 0 or any(
            self.asked[name] - self.sights[name].parked < slots for name, slots in gets.items()
        )

    def to_json(self) -> dict[str, Any]:
        """For ``explain --live -o json`` and whoever reads what the controller left."""
        groups = {name: self._group(name) for name in sorted(self.asked)}
        return {
            "at": round(self.at, 3),
            "tickSeconds": self.tick_seconds,
            "budget": self.budget,
            "squeezed": self.decision is not None and self.decision.is_squeezed,
            "groups": groups,
            "steps": list(self.steps),
            "note": self.note,
        }

    def _group(self, name: str) -> dict[str, Any]:
        assert self.decision is not None
        verdict, sample = self.decision.verdicts[name], self.sights[name].sample
        age, is_estimated = self.oldest(name)
        return {
            "has": sample.has,
            "need": verdict.need,
            "wants": verdict.wants,
            "share": verdict.share,
            "gets": verdict.gets,
            "asked": self.asked[name],
            "why": verdict.reason,
            "burst": verdict.is_burst,
            "queue": sample.queue,
            "oldestAge": None if age is None else round(age, 3),
            "ageEstimated": is_estimated,
            "busy": sample.busy,
            "ready": sample.ready,
            "starting": sample.starting,
            "draining": sample.draining,
            "parked": self.sights[name].parked,
            "completions": sample.completions,
            "busySeconds": None if sample.busy_seconds is None else round(sample.busy_seconds, 3),
        }

    def oldest(self, name: str) -> tuple[float | None, bool]:
        """How long the group's oldest task has waited, and whether that is an estimate."""
        sample = self.sights[name].sample
        if sample.oldest_age_seconds is not None or self.decision is None:
            return sample.oldest_age_seconds, sample.age_is_estimated
        track = self.decision.memory.groups[name].track
        return estimated_age_seconds(track, sample.queue or 0), True


class Controller:
    """The loop of one fleet. Everything it knows between two looks is in ``memory`` and ``meters``, kept in a file."""

    def __init__(
        self,
        session: Session,
        *,
        source: Callable[[str, Mapping[str, Any]], Source] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._session = session
        self._environ = environ
        self._source = source or self._sampler
        self._sources: dict[str, Source] = {}
        self._applied: Wanted | None = None
        self._applied_revision = 0
        self._values: dict[str, str] | None = None
        self._memory, self._meters = _remembered(session)

    def close(self) -> None:
        """Let go of connections."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    # --- one look

    def tick(self, *, follow: Decision | None = None) -> Look:
        """Look, decide, and begin what can be begun; or ``follow`` what was decided, as far as that was not possible.

        Raises FleetError; what was decided before stays in force.
        """
        seen = self.look(follow=follow)
        if isinstance(seen, Look):
            self._remember(seen)
            return seen
        try:
            with self._session.lock("fleet controller", brief=True):
                look = self._carried_out(seen)
        except LockHeld as held:
            look = replace(seen.look, note=f"nothing is moved meanwhile: {held.message}")
        self._remember(look)
        return look

    def look(self, *, follow: Decision | None = None) -> Look | _Seen:
        """Look and decide (or go by an earlier decision), and do nothing."""
        session = self._session
        standing, now = session.standing(), session.now()
        idle = Look(now, IDLE_SECONDS)
        if standing is None or standing.down:
            return replace(idle, note="the fleet is down")
        applied = self._manifest(standing.revision)
        if not has_controller(applied.manifest):
            return replace(idle, note="no group of the applied manifest autoscales, or balance.mode is not dynamic")
        observed = session.backend.observe()
        if not observed.up:
            return replace(idle, note="supervisord does not run; `fleet apply` starts it")
        overrides = session.exceptions()
        found = self._moving(applied, standing.desired, overrides)
        sample = self._backlog(standing.desired, found)
        names = [group.name for group in found.groups]
        seen = sights(names, standing.desired, observed, _backlog(sample), meters=self._meters, now=now)
        look = self._decided(found, seen, now, follow)
        return _Seen(replace(look, note=sample.problem), standing, observed)

    def _decided(self, found: Moving, seen: Mapping[str, Sight], now: float, follow: Decision | None) -> Look:
        """Parked slots are kept where they are: nobody works in them, and nobody may have them."""
        samples: dict[str, Sample] = {name: sight.sample for name, sight in seen.items()}
        budget = found.budget - sum(sight.parked for sight in seen.values())
        decision = follow
        if decision is None or decision.verdicts.keys() != samples.keys():
            decision = decide(
                self._memory,
                samples,
                found.groups,
                budget=budget,
                now=now,
                tuning=found.tuning,
                capacity=found.capacity,
            )
        self._memory = decision.memory
        self._meters = {name: sight.meter for name, sight in seen.items()}
        free = affordable(decision, samples, found.groups, budget=budget)
        asked = {name: slots + seen[name].parked for name, slots in free.items()}
        return Look(now, found.tuning.tick_seconds, found.budget, decision, seen, asked)

    def run(
        self, *, is_over: Callable[[], bool], wait: Callable[[float], object], tell: Callable[[Look | FleetError], None]
    ) -> None:
        """Look again and again until it is over. ``wait``: for so many seconds, or until it is over.

        A failed look is told and followed by a pause that doubles; what was decided before stays in force.
        """
        pause_seconds, hurried = 0.0, 0
        follow: Decision | None = None
        while not is_over():
            began = self._session.now()
            try:
                look = self.tick(follow=follow)
                tell(look)
                hurried = hurried + 1 if look.is_waiting else 0
                ends = (look.decision.at if look.decision is not None else began) + look.tick_seconds
                is_hurried = 0 < hurried <= HURRIED_TICKS * LOOKS_PER_TICK
                due = min(ends, began + look.tick_seconds / LOOKS_PER_TICK) if is_hurried else ends
                follow, pause_seconds = look.decision if due < ends else None, 0.0
            except FleetError as error:
                tell(error)
                pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * pause_seconds or IDLE_SECONDS)
                due, follow = began + pause_seconds, None
            wait(min(due - began, max(0.0, due - self._session.now())))

    def _carried_out(self, seen: _Seen) -> Look:
        """Write down what was decided, then begin. The lock is held; an apply that came first makes the look void."""
        session, look = self._session, seen.look
        if session.standing() != seen.standing:
            return replace(look, note="the fleet was changed during this look")
        applied = self._manifest(seen.standing.revision)
        before = decisions.read(session.places.decisions)
        after = _decisions(look, before)
        overrides = replace(session.exceptions(), slots=after.slots, slot_reasons=after.reasons)
        desired = divided_anew(applied.manifest, seen.standing.desired, overrides=overrides)
        steps, paced, notes = self._steps(desired, seen, applied)
        if dict(before.slots) != dict(after.slots):
            decisions.write(session.places.decisions, after)
            moved = _moved(before.slots, look, steps)
            session.audit.write(*([moved] if moved["moves"] else []))
        if desired != seen.standing.desired:
            session.keep(replace(seen.standing, desired=desired))
        if steps.changes:
            self._walk(steps, desired)
        done = tuple(step.id for step in steps.changes)
        return replace(look, steps=done, paced=paced, note=_joined(look.note, *notes))

    def _steps(self, desired: Desired, seen: _Seen, applied: Wanted) -> tuple[Plan, int, tuple[str, ...]]:
        """What can be begun, how many starts are put off, and what a person should know."""
        names, standing, observed = seen.look.asked.keys(), seen.standing, seen.observed
        has_ended = standing.revision == standing.good
        every = plan(desired, observed)
        before = every if desired == standing.desired else plan(standing.desired, observed)
        rolling = in_rollout(before, has_ended=has_ended) & names
        starts = STARTS_PER_CORE * machine.cpus()
        steps = begun(every, observed, groups=names - rolling, starts=starts)
        paced = starting(every, names - rolling) - starting(steps, names)
        notes = []
        if rolling:
            notes.append(f"{listed(sorted(rolling))}: not moved, because `fleet apply` has still something to do there")
        if any(step.action is Action.START for step in steps.steps):
            steps, rotated = self._startable(steps, applied)
            notes += rotated
        return steps, paced, tuple(notes)

    def _startable(self, steps: Plan, applied: Wanted) -> tuple[Plan, list[str]]:
        """Without new replicas whose secrets are not what they were at the apply: rolling those out is its business."""
        try:
            values = self._secrets(applied)
        except FleetError as error:
            return _alive_only(steps), [f"no replica is started: {error.message}"]
        marks = secrets.fingerprints(values, key=secrets.fleet_key(self._session.places.key))
        rotated = {name for name, mark in _secret_marks(steps) if marks.get(name) != mark}
        if not rotated:
            return steps, []
        names = listed(sorted(rotated))
        return _alive_only(steps), [f"no replica is started: {names} changed, `fleet apply` rolls that out"]

    def _walk(self, steps: Plan, desired: Desired) -> None:
        session = self._session
        try:
            apply(
                steps,
                session.backend,
                desired=desired,
                secrets=self._values or {},
                terms=Terms(wait=False, passing=True),
            )
        except FleetError as error:
            session.audit.write({"event": "balance.failed", "reason": error.message})
            raise

    # --- what a look needs

    def _manifest(self, revision: int) -> Wanted:
        """The manifest that stands, read once per revision."""
        if self._applied is None or self._applied_revision != revision:
            self._applied = wanted.from_revision(self._session.history.get(revision))
            self._applied_revision = revision
            self._values = None
            self.close()
        return self._applied

    def _moving(self, applied: Wanted, standing: Desired, overrides: Overrides) -> Moving:
        """What moves, groups left aside that a person holds: they keep their part."""
        manifest = applied.manifest
        found = moving(manifest, standing_specs(manifest, standing), overrides=overrides)
        still = {one.name for one in found.groups if _is_held(one.name, standing)}
        if not still:
            return found
        divided = static_division(manifest, standing, overrides=overrides)
        assert divided is not None
        return without(found, {name: overrides.slots.get(name, divided.allocation.slots[name]) for name in still})

    def _backlog(self, standing: Desired, found: Moving) -> BrokerSample:
        """What waits, asked once per app: apps may lay out their queues differently."""
        by_app: dict[str, set[str]] = {}
        for group in found.groups:
            spec = standing.groups[group.name].spec
            by_app.setdefault(spec.app, set()).update(queue.name for queue in spec.queues)
        samples = [self._asked(app, sorted(queues), standing) for app, queues in sorted(by_app.items()) if queues]
        return _together(samples)

    def _asked(self, app: str, queues: list[str], standing: Desired) -> BrokerSample:
        try:
            if app not in self._sources:
                self._sources[app] = self._source(self._broker_url(standing), self._layout(app, standing))
            return self._sources[app].sample(queues)
        except FleetError as error:
            return BrokerSample({}, None, error.message)

    def _layout(self, app: str, standing: Desired) -> Mapping[str, Any]:
        """How the app lays out its queues at the broker; a command has no app.

        Raises FleetError where it cannot be asked: the length of the wrong key would be 0 for ever, which is worse
        than no length at all.
        """
        if not app:
            return {}
        spec = next(group.spec for _, group in sorted(standing.groups.items()) if group.spec.app == app)
        hidden = [(variable, self._secret(name)) for variable, name, _ in spec.secret_env]
        answer = wanted.probe(app, python=spec.python, workdir=spec.workdir, env=(*spec.env, *hidden))
        options: Mapping[str, Any] = answer.get("transportOptions") or {}
        return options

    def _broker_url(self, standing: Desired) -> str:
        broker = broker_of(standing)
        if broker is None:
            raise UsageError("the manifest names no broker")
        return self._secret(broker.secret) if broker.secret else broker.url

    def _secret(self, name: str) -> str:
        assert self._applied is not None
        return self._secrets(self._applied)[name]

    def _secrets(self, applied: Wanted) -> Mapping[str, str]:
        """Their values: what the apply gave to the controller that it started, else what their sources say now."""
        if self._values is None:
            self._values = wanted.secret_values(applied, given=self._given(applied))
        return self._values

    def _given(self, applied: Wanted) -> dict[str, str]:
        variables = {name: secret_variable(name) for name in secrets_of(applied.manifest)}
        return {name: self._environ[variable] for name, variable in variables.items() if variable in self._environ}

    def _sampler(self, url: str, options: Mapping[str, Any]) -> Source:
        return Sampler(url, fleet=self._session.name, options=options)

    def _remember(self, look: Look) -> None:
        document = {
            "format": FORMAT,
            "look": look.to_json(),
            "memory": self._memory.to_json(),
            "meters": {name: meter.to_json() for name, meter in sorted(self._meters.items())},
        }
        write_whole(self._session.places.controller, json.dumps(document, ensure_ascii=False), lasting=False)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A look, and the world it was made from."""

    look: Look
    standing: Standing
    observed: Observed


def last_look(session: Session) -> dict[str, Any] | None:
    """What the controller saw and decided last, or None where it never looked."""
    document = _document(session)
    return None if document is None else document["look"]


def _document(session: Session) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(session.places.controller.read_text())
        return document if document["format"] == FORMAT and isinstance(document["look"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remembered(session: Session) -> tuple[Memory, dict[str, Meter]]:
    document = _document(session)
    try:
        if document is None:
            return EMPTY, {}
        meters = {name: Meter.from_json(one) for name, one in document["meters"].items()}
        return Memory.from_json(document["memory"]), meters
    except (ValueError, KeyError, TypeError):
        return EMPTY, {}


def _is_held(name: str, standing: Desired) -> bool:
    """Paused, or drained as a whole, by a person."""
    return standing.groups[name].paused or name in standing.drained


def _backlog(sample: BrokerSample) -> Backlog:
    return Backlog(
        waiting={name: one.waiting for name, one in sample.queues.items()},
        sent_at={name: one.oldest_sent_at for name, one in sample.queues.items()},
        held=sample.held,
    )


def _together(samples: list[BrokerSample]) -> BrokerSample:
    """One broker, asked in several ways."""
    queues = {name: one for sample in samples for name, one in sample.queues.items()}
    held: dict[str, int] = {}
    for sample in samples:
        held |= {name: max(count, held.get(name, 0)) for name, count in (sample.held or {}).items()}
    told = any(sample.held is not None for sample in samples)
    problem = next((sample.problem for sample in samples if sample.problem), "")
    return BrokerSample(queues, held if told else None, problem)


def _reasons(look: Look) -> dict[str, str]:
    assert look.decision is not None
    return {name: look.decision.verdicts[name].reason for name in look.asked}


def _decisions(look: Look, before: decisions.Decisions) -> decisions.Decisions:
    """What was decided now. Groups that a person holds keep what was decided before."""
    return decisions.Decisions(look.at, {**before.slots, **look.asked}, {**before.reasons, **_reasons(look)})


def _moved(before: Mapping[str, int], look: Look, steps: Plan) -> dict[str, Any]:
    """One entry for the audit: who got another number, why, and what that was decided on."""
    groups, reasons = look.to_json()["groups"], _reasons(look)
    slots_before = {name: before.get(name, group["has"]) for name, group in groups.items()}
    moves = {
        name: {"from": slots_before[name], "to": slots, "why": reasons[name]}
        for name, slots in sorted(look.asked.items())
        if slots_before[name] != slots
    }
    inputs = {name: groups[name] for name in moves}
    done = [[step.id, step.reason] for step in steps.changes]
    return {"event": "balance.moved", "moves": moves, "inputs": inputs, "budget": look.budget, "steps": done}


def _secret_marks(steps: Plan) -> Iterator[tuple[str, str]]:
    """Secret and fingerprint of everything that is about to start."""
    for step in steps.steps:
        if step.action is Action.START and step.target is not None:
            yield from ((name, mark) for _, name, mark in step.target.spec.secret_env)
            broker = step.target.spec.broker
            yield from [(broker.secret, broker.fingerprint)] if broker.secret else []


def _alive_only(steps: Plan) -> Plan:
    """Where nothing can come, nothing goes to make room for it."""
    return replace(steps, steps=tuple(step for step in steps.steps if step.action in _ALIVE))


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
