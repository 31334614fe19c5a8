"""What one look heals: by the same plan, lock and audit as ``apply``; it waits for nothing, the next look goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.backends.supervisor.daemon import wake
from fleet.core.decode import decoded
from fleet.core.desired import Desired, group_of
from fleet.core.expand.expand import divided_again
from fleet.core.healing.judge import NOTHING_HEALED, HealMemory, Heals, Judged, Verdict, judge, remembered
from fleet.core.healing.kinds import Ailment, Kind, Mode, ailments, starved
from fleet.core.healing.steps import healing_steps
from fleet.core.observed import Observed
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning.selection import sharing
from fleet.errors import FleetError, Unreachable
from fleet.file_access import KEPT_BYTES, read_file
from fleet.inputs import machine, secrets
from fleet.operate.apply.events import STARTS_PER_CORE, WalkOptions
from fleet.operate.apply.walk import apply
from fleet.operate.controller.revision_in_force import RevisionInForce
from fleet.operate.controller.steps import cannot_start
from fleet.operate.local_fleet import LocalFleet
from fleet.state.applied import Applied
from fleet.state.files import write_whole
from fleet.state.overrides import Override


@dataclass(frozen=True, slots=True)
class _Findings:
    """desired: what is healed towards, ended overrides left out.  ended: overrides whose time is over."""

    desired: Desired
    observed: Observed
    judged: tuple[Judged, ...]
    ended: tuple[Override, ...]
    ending: frozenset[str]


class Healer:
    """Heals one fleet, look by look."""

    def __init__(self, fleet: LocalFleet) -> None:
        self._fleet = fleet
        self._memory = _read(fleet)

    def heal(self, applied: Applied, revision: RevisionInForce, *, moving: Collection[str], dry: bool = False) -> Heals:
        """One look. With the lock held, or ``dry``: then nothing is done and nothing is remembered."""
        modes = {Kind(name): Mode(mode) for name, mode in revision.manifest.spec.heal.modes().items()}
        if all(mode is Mode.OFF for mode in modes.values()):
            return Heals()
        if not dry and modes[Kind.STUCK] is Mode.ENABLED:
            self._wake_daemon()
        found = self._look(applied, revision, modes, moving, dry=dry)
        if not found.observed.up or dry:
            return Heals(found.judged)
        if found.ended and modes[Kind.OVERRIDES] is Mode.ENABLED:
            self._end(found, applied)
        todo, note = self._affordable(found, revision)
        self._tell(found.judged, todo)
        self._walk(todo, found, revision)
        before = self._memory
        begun = {one.key for one in todo}
        self._memory = remembered(
            before, found.judged, begun, observed=found.observed, ending=found.ending, now=self._fleet.now()
        )
        if self._memory != before:
            _write(self._fleet, self._memory)
        return Heals(found.judged, note)

    def _wake_daemon(self) -> None:
        """supervisord answers nobody while somebody has stopped it (SIGSTOP)."""
        if wake(self._fleet.places):
            self._fleet.audit.write({"event": "daemon.woken", "reason": "supervisord was stopped (SIGSTOP)"})

    # --- look and judge

    def _look(
        self,
        applied: Applied,
        revision: RevisionInForce,
        modes: Mapping[Kind, Mode],
        moving: Collection[str],
        *,
        dry: bool,
    ) -> _Findings:
        fleet, now = self._fleet, self._fleet.now()
        has_ended = applied.revision == applied.good
        ended = tuple(one for one in fleet.kept_overrides() if not one.holds(now)) if has_ended else ()
        desired, touched = applied.desired, frozenset(self._memory.ending)
        if ended and modes[Kind.OVERRIDES] is not Mode.OFF:
            desired = divided_again(revision.manifest, desired, overrides=fleet.overrides_in_force())
            touched |= {group_of(one.target) for one in ended} | sharing(desired)
        observed = self._observed(renews=not dry and modes[Kind.DRIFT] is Mode.ENABLED)
        if not observed.up:
            return _Findings(desired, observed, (), ended, touched)
        steps = healing_steps(
            desired, observed, starved=starved(observed), moving=set(moving) - touched, has_ended=has_ended
        )
        found = ailments(steps, observed, under_way=self._memory.under_way, ending=touched)
        judged = judge(found, self._memory, modes, now=now)
        still = {group_of(step.replica) for step in steps} & touched
        return _Findings(desired, observed, judged, ended, frozenset(still))

    def _observed(self, *, renews: bool) -> Observed:
        """The replicas now. ``renews``: lost records are written again first."""
        backend = self._fleet.backend
        observed = backend.observe(usage=False)
        if renews:
            with contextlib.suppress(Unreachable):
                if backend.renew_records():
                    return backend.observe(usage=False)
        return observed

    def _affordable(self, found: _Findings, revision: RevisionInForce) -> tuple[list[Ailment], str]:
        """What is begun now: not more starts at once than the machine has room for, and none that could not start."""
        todo = [one.ailment for one in found.judged if one.verdict is Verdict.HEAL]
        note = ""
        fresh = [one.step for one in todo if _is_written(one.step, found.observed)]
        if fresh and (note := cannot_start(fresh, lambda: self._fingerprints(revision))):
            todo = [one for one in todo if one.step not in fresh]
            note = f"no replica is started: {note}"
        room = STARTS_PER_CORE * machine.cpus()
        return [one for one in todo if one.goes_on or (room := room - 1) >= 0], note

    def _fingerprints(self, revision: RevisionInForce) -> dict[str, str]:
        return secrets.fingerprints(revision.secrets(), key=secrets.fleet_key(self._fleet.places.key))

    # --- act

    def _end(self, found: _Findings, applied: Applied) -> None:
        """From now on the fleet is to be as it is without these overrides."""
        fleet = self._fleet
        fleet.keep_applied(replace(applied, desired=found.desired))
        fleet.keep_overrides(tuple(one for one in fleet.kept_overrides() if one not in found.ended))
        fleet.audit.write(
            *({"event": "override.ended", "override": str(one), "reason": "its time is over"} for one in found.ended)
        )

    def _tell(self, judged: Sequence[Judged], todo: Sequence[Ailment]) -> None:
        events = {Verdict.GIVEN_UP: "heal.parked", Verdict.WARN: "heal.warned"}
        told = [(events[one.verdict], one) for one in judged if one.verdict in events and one.fresh]
        keys = {one.key for one in todo if not one.goes_on}
        told += [("heal.started", one) for one in judged if one.ailment.key in keys]
        self._fleet.audit.write(*(_entry(event, one) for event, one in told))

    def _walk(self, todo: Sequence[Ailment], found: _Findings, revision: RevisionInForce) -> None:
        if not todo:
            return
        steps = Plan(self._fleet.name, tuple(one.step for one in todo))
        try:
            options = WalkOptions(wait=False, passing=True)
            apply(steps, self._fleet.backend, desired=found.desired, secrets=revision.secrets_read(), options=options)
        except FleetError as error:
            self._fleet.audit.write({"event": "heal.failed", "reason": error.message})
            raise


def _is_written(step: Step, observed: Observed) -> bool:
    """Its launch document is written, which may take secrets."""
    seen = observed.replicas.get(step.replica)
    return step.action is Action.REPLACE or (step.action is Action.START and (seen is None or seen.spec is None))


def _entry(event: str, one: Judged) -> dict[str, Any]:
    step = one.ailment.step
    entry = {"event": event, "replica": step.replica, "class": str(one.ailment.kind), "step": step.id}
    return {**entry, "reason": step.reason, "heals": one.heals}


def _read(fleet: LocalFleet) -> HealMemory:
    """What was remembered. It may be lost: then everything is healed as if for the first time."""
    try:
        return decoded(HealMemory, json.loads(read_file(fleet.places.healing, limit_bytes=KEPT_BYTES, own=True)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return NOTHING_HEALED


def _write(fleet: LocalFleet, memory: HealMemory) -> None:
    write_whole(fleet.places.healing, json.dumps(memory.to_json(), ensure_ascii=False), lasting=False)
