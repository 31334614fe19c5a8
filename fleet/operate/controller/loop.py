"""Heals a fleet, and moves the slots of its groups that autoscale: one look, one decision, one short walk, again and
again.

A look observes replicas and queues, decides with :mod:`fleet.core.autoscale.decide`, and begins what can be begun at
once: by the same plan, lock and backend as ``apply``. It waits for nothing; the next look goes on with what is not
done. What it decided is on disk before the first step, so that it may be killed at any moment, and an apply follows
the same numbers. What it remembers of earlier looks may be lost: then no group shrinks for a minute.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleet.broker.backlog.sampler import Sampler
from fleet.core.autoscale.decide import Decision, affordable, decide
from fleet.core.autoscale.groups import ScaledGroups, scaled_groups, without
from fleet.core.autoscale.measure import Measured, measure
from fleet.core.autoscale.sample import Sample
from fleet.core.desired import CONTROLLER_GROUP, Desired, replica_name
from fleet.core.expand.expand import applied_specs, divided_again, moves_slots, static_division
from fleet.core.expand.facts import Overrides
from fleet.core.healing.judge import Heals
from fleet.core.manifest.models import Manifest
from fleet.core.plan import Plan
from fleet.core.text.format import duration
from fleet.errors import Damaged, FleetError, LockHeld
from fleet.inputs import machine, secrets
from fleet.operate.apply.events import STARTS_PER_CORE, WalkOptions
from fleet.operate.apply.walk import apply
from fleet.operate.controller import memory_file
from fleet.operate.controller.backlog import BacklogReader, Connect, Source
from fleet.operate.controller.healing import Healer
from fleet.operate.controller.look import IDLE_SECONDS, Look, NextLook, Seen, World, decisions_after, moved, next_look
from fleet.operate.controller.revision_in_force import RevisionInForce
from fleet.operate.controller.steps import beginnings
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.notify.notifier import Background, Notifier
from fleet.state import controller_heartbeat, decisions
from fleet.state.controller_heartbeat import LATE_SECONDS, Heartbeat

CONTROLLER = replica_name(CONTROLLER_GROUP, 0)


class Controller:
    """The loop of one fleet. Everything it knows between two looks is in memory and meters, kept in a file."""

    def __init__(
        self, fleet: LocalFleet, *, source: Connect | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._fleet = fleet
        self._environ = environ
        self._source = source or self._sampler
        self._revision: RevisionInForce | None = None
        self._backlog: BacklogReader | None = None
        self._memory, self._meters = memory_file.read(fleet.places.controller)
        self._healer = Healer(fleet)
        self.notifications = Background()

    def close(self) -> None:
        """Close the connections."""
        if self._backlog is not None:
            self._backlog.close()

    def run(
        self,
        *,
        is_over: Callable[[], bool],
        wait: Callable[[float], object],
        on_look: Callable[[Look | FleetError], None],
    ) -> None:
        """Look again and again until it is over. ``wait``: for so many seconds, or until it is over.

        A failed look is reported and followed by a pause that doubles; what was decided before stays in force.
        """
        following = NextLook()
        self._beat(self._fleet.now())
        while not is_over():
            began = self._fleet.now()
            self._say_late(following.due, began)
            try:
                result: Look | FleetError = self.tick(follow=following.follow)
            except FleetError as error:
                result = error
            on_look(result)
            following = next_look(following, result, began=began)
            self._beat(following.due, error=result.message if isinstance(result, FleetError) else "")
            self._tell()
            wait(min(following.due - began, max(0.0, following.due - self._fleet.now())))

    def _beat(self, next_at: float, *, error: str = "") -> None:
        heartbeat = Heartbeat(self._fleet.now(), next_at, os.getpid(), error)
        controller_heartbeat.write(self._fleet.places.controller_heartbeat, heartbeat)

    def _say_late(self, due: float, now: float) -> None:
        """A controller that was stopped, or hung, for so long that others saw it says so itself when it goes on."""
        if due and now - due > LATE_SECONDS:
            reason = f"it did not look for {duration(round(now - due))}, and goes on now"
            with contextlib.suppress(FleetError):
                self._fleet.audit.write({"event": "controller.stuck", "replica": CONTROLLER, "reason": reason})

    def _tell(self) -> None:
        """Have sent what is new and what waits; whoever is told holds up no look."""
        if self._revision is None:
            return
        notifier = Notifier(self._fleet.places, self._revision.receivers, now=self._fleet.now)
        with contextlib.suppress(FleetError):
            if notifier.is_due():
                self.notifications.start(notifier.look)

    # --- one look

    def tick(self, *, follow: Decision | None = None) -> Look:
        """Heal, look, decide, and begin what can be begun; or ``follow`` what was decided, as far as that was not
        possible.

        Raises FleetError; what was decided before stays in force, and what can be healed is.
        """
        self._forget_damaged()
        try:
            heals = self.heal()
        except FleetError:
            self._moved(follow, Heals())
            raise
        return self._moved(follow, heals)

    def _forget_damaged(self) -> None:
        """Remove decisions that cannot be read: it is the controller that decides again, at this look."""
        path = self._fleet.places.decisions
        try:
            decisions.read(path)
        except Damaged as error:
            decisions.forget(path)
            self._fleet.audit.write({"event": "state.forgotten", "reason": error.message})

    def _moved(self, follow: Decision | None, heals: Heals) -> Look:
        seen = self.look(follow=follow)
        look = seen.look if seen.world is None else self._acted(seen.look, seen.world)
        look = replace(look, heals=heals, note=_joined(look.note, heals.note))
        memory_file.write(self._fleet.places.controller, look, self._memory, meters=self._meters)
        return look

    def heal(self, *, dry: bool = False) -> Heals:
        """Put right what is not as it was applied. ``dry``: only say what is wrong, and what would be done now."""
        if dry:
            return self._healed(dry=True)
        try:
            with self._fleet.lock("fleet controller", brief=True):
                return self._healed(dry=False)
        except LockHeld as held:
            return Heals(note=f"nothing is healed meanwhile: {held.message}")

    def _healed(self, *, dry: bool) -> Heals:
        applied = self._fleet.applied()
        if applied is None or applied.down:
            return Heals()
        revision, _ = self._in_force(applied.revision)
        moving: set[str] = set()
        if moves_slots(revision.manifest):
            moving = {group.name for group in self._found(revision.manifest, applied.desired).groups}
        return self._healer.heal(applied, revision, moving=moving, dry=dry)

    def _found(self, manifest: Manifest, desired: Desired) -> ScaledGroups:
        return _moving(manifest, desired, self._fleet.overrides_in_force())

    def look(self, *, follow: Decision | None = None) -> Seen:
        """Look and decide (or follow an earlier decision), and do nothing."""
        fleet = self._fleet
        applied, now = fleet.applied(), fleet.now()
        idle = Look(now, IDLE_SECONDS)
        if applied is None or applied.down:
            return Seen(replace(idle, note="the fleet is down"))
        revision, backlog = self._in_force(applied.revision)
        if not moves_slots(revision.manifest):
            note = "no group of the applied manifest autoscales, or balance.mode is not dynamic"
            return Seen(replace(idle, note=note))
        observed = fleet.backend.observe(usage=False)
        if not observed.up:
            return Seen(replace(idle, note="supervisord does not run; `fleet apply` starts it"))
        found = self._found(revision.manifest, applied.desired)
        names = [group.name for group in found.groups]
        sample = backlog.read(applied.desired, names)
        seen = measure(names, applied.desired, observed, sample, meters=self._meters, now=now)
        look = self._decided(found, seen, now=now, follow=follow)
        return Seen(replace(look, note=sample.problem), World(applied, observed))

    def _decided(
        self, found: ScaledGroups, seen: Mapping[str, Measured], *, now: float, follow: Decision | None
    ) -> Look:
        """Decide. Slots of parked replicas stay with their group: no other group may have them."""
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
                parameters=found.parameters,
                capacity=found.capacity,
            )
        self._memory = decision.memory
        self._meters = {name: sight.meter for name, sight in seen.items()}
        free = affordable(decision, samples, found.groups, budget=budget)
        asked = {name: slots + seen[name].parked for name, slots in free.items()}
        return Look(now, found.parameters.tick_seconds, found.budget, decision, seen, asked)

    # --- what follows from it

    def _acted(self, look: Look, world: World) -> Look:
        """Take the lock for a moment, and begin; an apply that came first makes the look void."""
        try:
            with self._fleet.lock("fleet controller", brief=True):
                if self._fleet.applied() != world.applied:
                    return replace(look, note="the fleet was changed during this look")
                return self._begun(look, world)
        except LockHeld as held:
            return replace(look, note=f"nothing is moved meanwhile: {held.message}")

    def _begun(self, look: Look, world: World) -> Look:
        """Write down what was decided, then begin. The lock is held."""
        fleet, applied = self._fleet, world.applied
        revision, _ = self._in_force(applied.revision)
        before = decisions.read(fleet.places.decisions)
        after = decisions_after(look, before)
        overrides = replace(fleet.overrides_in_force(), slots=after.slots, slot_reasons=after.reasons)
        desired = divided_again(revision.manifest, applied.desired, overrides=overrides)
        made = beginnings(
            desired,
            world,
            groups=look.asked.keys(),
            starts=STARTS_PER_CORE * machine.cpus(),
            fingerprints=lambda: self._fingerprints(revision),
        )
        if dict(before.slots) != dict(after.slots):
            decisions.write(fleet.places.decisions, after)
            entry = moved(before.slots, look, made.steps)
            fleet.audit.write(*([entry] if entry["moves"] else []))
        if desired != applied.desired:
            fleet.keep_applied(replace(applied, desired=desired))
        if made.steps.changes:
            self._walk(made.steps, desired, secrets=revision.secrets_read())
        done = tuple(step.id for step in made.steps.changes)
        return replace(look, steps=done, paced=made.paced, note=_joined(look.note, *made.notes))

    def _walk(self, steps: Plan, desired: Desired, *, secrets: Mapping[str, str]) -> None:
        fleet = self._fleet
        try:
            options = WalkOptions(wait=False, passing=True)
            apply(steps, fleet.backend, desired=desired, secrets=secrets, options=options)
        except FleetError as error:
            fleet.audit.write({"event": "balance.failed", "reason": error.message})
            raise

    def _fingerprints(self, revision: RevisionInForce) -> dict[str, str]:
        return secrets.fingerprints(revision.secrets(), key=secrets.fleet_key(self._fleet.places.key))

    # --- what a look needs

    def _in_force(self, number: int) -> tuple[RevisionInForce, BacklogReader]:
        """The revision that was applied last, read once, and the connections that belong to it."""
        if self._revision is None or self._backlog is None or self._revision.number != number:
            self.close()
            self._revision = RevisionInForce(self._fleet.history.get(number), environ=self._environ)
            self._backlog = BacklogReader(self._revision, self._source)
        return self._revision, self._backlog

    def _sampler(self, url: str, options: Mapping[str, Any]) -> Source:
        return Sampler(url, fleet=self._fleet.name, options=options)


def _moving(manifest: Manifest, desired: Desired, overrides: Overrides) -> ScaledGroups:
    """The groups whose slots move. Groups that a person holds (paused, or all drained) keep their part and do not."""
    found = scaled_groups(manifest, applied_specs(manifest, desired), overrides=overrides)
    still = {one.name for one in found.groups if desired.groups[one.name].paused or one.name in desired.drained}
    if not still:
        return found
    divided = static_division(manifest, desired, overrides=overrides)
    assert divided is not None
    return without(found, {name: overrides.slots.get(name, divided.allocation.slots[name]) for name in still})


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
