"""One fleet on this host as a verb works on it: its files, its backend, what was applied, and the plans between."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fleet.backends.base import Backend
from fleet.core.desired import Desired
from fleet.core.observed import Observed
from fleet.errors import UsageError
from fleet.state import trust
from fleet.state.applied import Applied, load, save
from fleet.state.audit import Audit
from fleet.state.files import Stamp, stamp_of
from fleet.state.paths import Places

if TYPE_CHECKING:
    from fleet.core.expand.facts import Facts, Overrides
    from fleet.core.migration.state import Migration
    from fleet.core.plan import Action, Plan
    from fleet.inputs.manifest import LoadedManifest
    from fleet.settings import Settings
    from fleet.state.lock import Lock
    from fleet.state.overrides import Override
    from fleet.state.revisions import History


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A plan, the two values it lies between, and what it takes to carry it out.

    secrets: name -> value, for the replicas that start.  manifest: to be kept as a revision (None: the newest stays).
    before: called just before the first step; writes what the verb changes.
    """

    desired: Desired
    observed: Observed
    plan: Plan
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    manifest: LoadedManifest | None = None
    before: Callable[[], None] = lambda: None


class LocalFleet:
    """One fleet. Nothing is read, created or connected before it is needed.

    Raises Refused where another account could change its files; ``trusted``: whoever asks judges that.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: Settings,
        backend: Backend | None = None,
        now: Callable[[], float] = time.time,
        trusted: bool = False,
    ) -> None:
        self.places = Places.of(settings.home, name)
        if not trusted:
            trust.check(self.places)
        self.settings = settings
        self.now = now
        self.audit = Audit(self.places.audit, now=now)
        self._given_backend = backend
        self._applied: tuple[Stamp, Applied | None] | None = None

    @property
    def name(self) -> str:
        """The fleet's name."""
        return self.places.fleet

    @cached_property
    def history(self) -> History:
        """What was applied to it."""
        from fleet.state.revisions import History

        return History(self.places.revisions, now=self.now)

    @cached_property
    def backend(self) -> Backend:
        """Where its replicas live."""
        if self._given_backend is not None:
            return self._given_backend
        from fleet.backends.supervisor.backend import SupervisorBackend

        return SupervisorBackend(self.places, rpc_timeout_seconds=self.settings.rpc_timeout_seconds)

    def lock(self, command: str = "", *, brief: bool = False) -> Lock:
        """The lock of a command that changes the fleet. ``brief``: held for moments; other commands wait for it."""
        from fleet.state.lock import Lock

        return Lock(self.places, command=command, brief=brief)

    def controller_lock(self) -> Lock:
        """Held by the one controller of the fleet as long as it runs."""
        from fleet.state.lock import Lock

        path, taken = self.places.controller_lock, "has a controller already:"
        hint = "`fleet explain --live` shows what it sees and decides"
        return Lock(self.places, command="fleet controller", path=path, taken=taken, hint=hint)

    def foreground_lock(self) -> Lock:
        """Held by the one process that keeps the fleet up in the foreground, as long as it runs."""
        from fleet.state.lock import Lock

        path, taken = self.places.foreground_lock, "is kept up already by"
        hint = "end that one, or work with the fleet that runs: `fleet status`, `fleet apply`"
        return Lock(self.places, command="fleet run", path=path, taken=taken, hint=hint)

    # --- what it was told

    def applied(self) -> Applied | None:
        """What was applied last, or None before the first apply. The file is replaced as a whole, and read once."""
        stamp = stamp_of(self.places.applied)
        if stamp is None or self._applied is None or self._applied[0] != stamp:
            applied = load(self.places.applied)
            self._applied = None if stamp is None else (stamp, applied)
            return applied
        return self._applied[1]

    def keep_applied(self, word: Applied) -> None:
        """Write what was applied."""
        save(self.places.applied, word)

    def applied_manifest(self) -> LoadedManifest:
        """The manifest of the newest revision. Raises UsageError before the first apply."""
        from fleet.inputs.manifest import from_revision

        revision = self.history.latest()
        if revision is None:
            hint = "name a manifest, or set FLEET_HOME to the folder of the fleet"
            raise UsageError(f"fleet {self.name!r} was never applied under {self.places.root.parent}", hint=hint)
        return from_revision(revision)

    def kept_overrides(self) -> tuple[Override, ...]:
        """Its live exceptions, ended ones included."""
        from fleet.state.overrides import read

        return read(self.places.overrides)

    def keep_overrides(self, overrides: tuple[Override, ...]) -> None:
        """Write its live exceptions."""
        from fleet.state.overrides import write

        write(self.places.overrides, overrides, fleet=self.name, now=self.now())

    # --- what it should be, and how it gets there

    def desired_of(
        self, loaded: LoadedManifest, *, overrides: tuple[Override, ...] | None = None
    ) -> tuple[Desired, Mapping[str, str]]:
        """The fleet a manifest describes here, with overrides and decisions applied, and its secrets by name.

        ``overrides``: instead of those that are kept.
        """
        from fleet.inputs.facts import desired_of

        in_force = self.overrides_in_force(overrides)
        return desired_of(loaded, self.places, redis_server=self.settings.redis_server, overrides=in_force)

    def overrides_in_force(self, overrides: tuple[Override, ...] | None = None) -> Overrides:
        """Exceptions to the manifest that have not ended, as the planner reads them."""
        from fleet.state import decisions
        from fleet.state.overrides import in_force

        live = in_force(self.kept_overrides() if overrides is None else overrides, now=self.now())
        decided = decisions.read(self.places.decisions)
        migration = self.migration()
        moved = migration.moved() if migration is not None else {}
        return replace(live, slots=decided.slots, slot_reasons=decided.reasons, moved=moved)

    def migration(self) -> Migration | None:
        """How far its groups moved to a cluster; None where none ever did."""
        from fleet.state.migration import read

        return read(self.places.migration)

    def facts_of(self, loaded: LoadedManifest, secrets: Mapping[str, str]) -> Facts:
        """What a manifest resolves to here, for its revision; ``secrets``: their values by name."""
        from fleet.inputs.facts import gather

        return gather(loaded, self.places, secrets, redis_server=self.settings.redis_server)

    def desired_as_applied(self, *, overrides: tuple[Override, ...] | None = None) -> Desired:
        """The fleet as the last apply made it, divided by the overrides in force: it needs no secret and no app.

        Raises UsageError for a fleet that was never applied, or is down.
        """
        from fleet.core.expand.expand import divided_again

        applied = self.applied()
        latest = self.applied_manifest()
        if applied is None or applied.down or not applied.desired.groups:
            raise UsageError(f"fleet {self.name!r} is down", hint=f"bring it up: fleet apply --fleet {self.name}")
        kept = applied.revision in self.history.numbers()
        manifest = self.manifest_of(applied.revision).manifest if kept else latest.manifest
        return divided_again(manifest, applied.desired, overrides=self.overrides_in_force(overrides))

    def manifest_of(self, revision: int) -> LoadedManifest:
        """The manifest of a revision. Raises UsageError where there is none of that number."""
        from fleet.inputs.manifest import from_revision

        return from_revision(self.history.get(revision))

    def steered(
        self,
        desired: Desired,
        *,
        only: Collection[str],
        actions: Collection[Action] | None = None,
        restart: Collection[str] = (),
    ) -> PlannedChange:
        """Look at the world and plan what deploys nothing, see :mod:`fleet.core.planning.steering`."""
        from fleet.core.planning.steering import steered

        observed = self.backend.observe()
        plan = steered(desired, observed, only=only, actions=actions, restart=restart)
        return PlannedChange(desired, observed, plan, self._secrets_to_start(plan))

    def _secrets_to_start(self, plan: Plan) -> Mapping[str, str]:
        """What replicas that start need, as far as their sources still give what was applied; the backend knows the
        values that running replicas have."""
        from fleet.core.plan import Action

        starts = (step.target.spec for step in plan.changes if step.action is Action.START and step.target is not None)
        marks = {name: mark for spec in starts for name, mark in spec.secret_marks().items()}
        if not marks:
            return {}
        from fleet.inputs.facts import applied_secrets
        from fleet.inputs.secrets import fleet_key

        return applied_secrets(self.applied_manifest(), marks, key=fleet_key(self.places.key))

    def planned(
        self,
        desired: Desired,
        secrets: Mapping[str, str] = MappingProxyType({}),
        *,
        manifest: LoadedManifest | None = None,
        prune: bool = False,
        restart: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> PlannedChange:
        """Observe and plan. ``only``: groups whose steps the plan keeps; the others stay as they are."""
        from fleet.core.planning.planner import plan
        from fleet.core.planning.rollout import in_waves
        from fleet.core.planning.selection import limited

        observed = self.backend.observe()
        steps = plan(desired, observed, prune=prune, restart=frozenset(restart))
        if only is not None:
            steps = limited(steps, only)
        return PlannedChange(desired, observed, in_waves(steps, desired, observed), secrets, manifest)


def known_fleets(home: Path) -> list[str]:
    """Fleets that were applied under a home folder; a key for a saved plan alone makes none."""
    try:
        return sorted(path.name for path in home.iterdir() if _was_applied(Places(path)))
    except OSError:
        return []


def _was_applied(places: Places) -> bool:
    return places.run.is_dir() or any(path.name != places.key.name for path in places.state.glob("[!.]*"))
