"""One fleet on this host as a verb works on it: its files, its backend, what was applied, and the plans between."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fleet import decisions
from fleet.audit import Audit
from fleet.backends.base import Backend
from fleet.core.desired import RESERVED_PREFIX, Desired, group_of
from fleet.core.observed import Observed
from fleet.core.plan import Action, Plan
from fleet.errors import UsageError
from fleet.history import History
from fleet.lock import Lock
from fleet.places import Places
from fleet.standing import Standing, load, save

if TYPE_CHECKING:
    from fleet.core.facts import Overrides
    from fleet.overrides import Override
    from fleet.settings import Settings
    from fleet.wanted import Aim, Wanted


@dataclass(frozen=True, slots=True)
class Outlook:
    """A plan and the two values it lies between."""

    desired: Desired
    observed: Observed
    plan: Plan


class Session:
    """One fleet. Nothing is read, made or connected before it is asked for."""

    def __init__(
        self,
        name: str,
        *,
        settings: Settings,
        backend: Backend | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.places = Places.of(settings.home, name)
        self.settings = settings
        self.now = now
        self.audit = Audit(self.places.audit, now=now)
        self.history = History(self.places.revisions, now=now)
        self._given_backend = backend

    @property
    def name(self) -> str:
        """The fleet's name."""
        return self.places.fleet

    @cached_property
    def backend(self) -> Backend:
        """Where its replicas live."""
        if self._given_backend is not None:
            return self._given_backend
        from fleet.backends.supervisor.backend import SupervisorBackend

        return SupervisorBackend(self.places, rpc_timeout_seconds=self.settings.rpc_timeout_seconds)

    def lock(self, command: str = "", *, brief: bool = False) -> Lock:
        """Held by whoever changes the fleet. ``brief``: for moments only; others wait instead of giving up."""
        return Lock(self.places, command=command, brief=brief)

    def controller_lock(self) -> Lock:
        """Held by the one controller of the fleet as long as it runs."""
        path, taken = self.places.controller_lock, "has a controller already:"
        hint = "`fleet explain --live` shows what it sees and decides"
        return Lock(self.places, command="fleet controller", path=path, taken=taken, hint=hint)

    # --- what it was told

    @property
    def standing_file(self) -> Path:
        """Where the last word on the fleet is kept."""
        return self.places.state / "standing.json"

    def standing(self) -> Standing | None:
        """The last word on the fleet, or None before the first apply."""
        return load(self.standing_file)

    def keep(self, word: Standing) -> None:
        """Write the last word on the fleet."""
        save(self.standing_file, word)

    def last_applied(self) -> Wanted:
        """The manifest of the newest revision. Raises UsageError before the first apply."""
        from fleet.wanted import from_revision

        revision = self.history.latest()
        if revision is None:
            hint = "name a manifest, or set FLEET_HOME to where the fleet lives"
            raise UsageError(f"fleet {self.name!r} was never applied under {self.places.root.parent}", hint=hint)
        return from_revision(revision)

    def overrides(self) -> tuple[Override, ...]:
        """Its live exceptions, ended ones included."""
        from fleet.overrides import read

        return read(self.places.overrides)

    def keep_overrides(self, overrides: tuple[Override, ...]) -> None:
        """Write its live exceptions."""
        from fleet.overrides import write

        write(self.places.overrides, overrides, fleet=self.name, now=self.now())

    # --- what it should be, and how it gets there

    def aim(self, wanted: Wanted, *, overrides: tuple[Override, ...] | None = None) -> Aim:
        """The desired fleet of a manifest with the live exceptions in force, and what the controller decided."""
        from fleet.wanted import aim

        return aim(wanted, self.places, redis_server=self.settings.redis_server, overrides=self.exceptions(overrides))

    def exceptions(self, overrides: tuple[Override, ...] | None = None) -> Overrides:
        """Everything that is not as the manifest says, as the planner reads it."""
        from fleet.overrides import in_force

        live = in_force(self.overrides() if overrides is None else overrides, now=self.now())
        decided = decisions.read(self.places.decisions)
        return replace(live, slots=decided.slots, slot_reasons=decided.reasons)

    def outlook(
        self,
        desired: Desired,
        *,
        prune: bool = False,
        restart: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> Outlook:
        """Look at the world and plan. ``only``: groups whose steps are wanted; the others are left as they are."""
        from fleet.core.planner import plan
        from fleet.core.rollout import in_waves

        observed = self.backend.observe()
        steps = plan(desired, observed, prune=prune, restart=frozenset(restart))
        if only is not None:
            steps = limited(steps, only)
        return Outlook(desired, observed, in_waves(steps, desired, observed))


def limited(plan: Plan, groups: Collection[str]) -> Plan:
    """The plan with steps of these groups and of fleet's own programs only; a note says what it leaves out."""
    within = tuple(step for step in plan.steps if _concerns(step.replica, groups))
    others = sorted({step.replica for step in plan.changes} - {step.replica for step in within})
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    notes = (f"left out: {', '.join(others[:5])}{more} also differ; see `fleet plan`",) if others else ()
    return replace(plan, steps=within, notes=(*plan.notes, *notes))


def _concerns(replica: str, groups: Collection[str]) -> bool:
    group = group_of(replica)
    return group in groups or group.startswith(RESERVED_PREFIX)


def sharing(desired: Desired) -> set[str]:
    """Groups whose slots follow from what the others take."""
    return {name for name, group in desired.groups.items() if group.scaling != "replicas"}


def leaving(plan: Plan) -> list[str]:
    """Replicas that go without another coming in their place, spares not counted."""
    goes = [step.replica for step in plan.steps if step.action in {Action.DRAIN, Action.STOP}]
    comes = {step.replica for step in plan.steps if step.action in {Action.START, Action.REPLACE}}
    return [name for name in goes if name not in comes]


def known_fleets(home: Path) -> list[str]:
    """Fleets that were applied under a home folder; a key for a kept plan alone makes none."""
    try:
        return sorted(path.name for path in home.iterdir() if _was_applied(Places(path)))
    except OSError:
        return []


def _was_applied(places: Places) -> bool:
    return places.run.is_dir() or any(path.name != places.key.name for path in places.state.glob("[!.]*"))
