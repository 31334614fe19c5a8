"""The effects of a migration, one method each: what is kept, what changes in the cluster, what changes on this host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fleet.backends.kubernetes.kinds import DEPLOYMENT, name_of
from fleet.backends.kubernetes.names import object_name
from fleet.backends.kubernetes.objects import has_scaler
from fleet.core.migration.split import slots_there
from fleet.core.migration.state import Migration
from fleet.core.planning import budget
from fleet.core.planning.selection import sharing
from fleet.core.text.format import counted, duration, listed
from fleet.errors import Interrupted, NotReady
from fleet.operate.cluster import carry_out
from fleet.operate.cluster.lock import ClusterLock
from fleet.operate.cluster.migration import forget_migration, write_migration
from fleet.operate.local_fleet import PlannedChange
from fleet.operate.migrate.sides import Sides
from fleet.state import migration as kept

_POLL_SECONDS = 0.2
_GONE_SECONDS = 600.0
_MARGIN_SECONDS = 60.0
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Effects:
    """What a step may do. The caller holds both locks.

    walk: carries out a change of this host and waits.  flags: of changes in the cluster.
    """

    sides: Sides
    lock: ClusterLock
    flags: carry_out.Flags
    walk: Callable[[PlannedChange], None]

    # --- what was written down

    def kept(self) -> Migration:
        """How far it is, as this host knows."""
        return self.sides.migration()

    def told(self) -> Migration | None:
        """How far it is, as the cluster knows; None: nothing moves."""
        return self.sides.cluster.migration()

    def groups(self) -> frozenset[str]:
        """All groups that this host has, or had."""
        return frozenset(self.sides.host_manifest.spec.groups)

    def check_there(self, migration: Migration) -> None:
        """Raise before anything stops where the cluster would refuse what comes: Refused, or what it says itself."""
        look = self.sides.cluster.planned_as(self.sides.loaded, migration)
        carry_out.refuse_conflicts(look, force=self.flags.force_ownership)

    # --- effects

    def keep(self, migration: Migration) -> None:
        """Write on this host how far it is: before what the host or the cluster may then do."""
        kept.write(self.sides.local.places.migration, migration)

    def forget(self) -> None:
        """Every group is on this host."""
        kept.forget(self.sides.local.places.migration)

    def tell(self, migration: Migration) -> None:
        """Write it in the cluster, where every apply and the scaler follow it."""
        self.lock.renew()
        write_migration(self.sides.cluster.cluster, migration)

    def forget_there(self) -> None:
        """The cluster has everything, or nothing."""
        self.lock.renew()
        forget_migration(self.sides.local.name, self.sides.cluster.cluster)

    def audit(self, **entry: Any) -> None:
        """One line in the audit of this host."""
        self.sides.local.audit.write(entry)

    def live_pods(self, group: str) -> int | None:
        """How many pods the cluster is to have of a group now; None for one that runs once."""
        cluster, said = self.sides.cluster, self.sides.loaded.manifest.spec.groups.get(group)
        if said is not None and said.job:
            return None
        found = cluster.cluster.get(DEPLOYMENT, object_name(cluster.name, group))
        return 0 if found is None else int(found["spec"].get("replicas") or 0)

    def there(
        self, migration: Migration | None, group: str = "", *, most: int | None = None, ready: bool = True
    ) -> None:
        """Bring the cluster to what it has now, and wait: pods that come are ready, pods that go are gone.

        most: pods of the group that may be left (None: a scaler says).  ready: wait for those that stay, too; whoever
        leaves does not depend on them.  Raises what :func:`carry_out.apply_look`
        raises, and NotReady for pods that stay.
        """
        cluster = self.sides.cluster
        look = cluster.planned_as(self.sides.loaded, migration)
        if look.desired is not None and look.desired.groups:
            flags = replace(self.flags, say=self._about(group) if group else self.flags.say, wait=ready)
            carry_out.apply_look(cluster, look, flags, lock=self.lock)
        elif not look.plan.is_empty:
            carry_out.take_down(cluster, look, self.flags, lock=self.lock)
        if most is not None:
            self._wait_until_gone(group, most=most)
        if migration is not None and not ready and has_scaler(self.sides.loaded.manifest):
            self._wait_for_loans(migration)

    def _about(self, group: str) -> Callable[[str], None]:
        """Says nothing of pods of other groups, which a step leaves alone."""
        name = self.sides.cluster.name
        others = tuple(f"{object_name(name, one)}: " for one in self.sides.loaded.manifest.spec.groups if one != group)

        def say(line: str) -> None:
            if not line.startswith(others):
                self.flags.say(line)

        return say

    def _wait_until_gone(self, group: str, *, most: int) -> None:
        cluster, seconds = self.sides.cluster, [_GONE_SECONDS]

        def left() -> str:
            pods = [one for one in cluster.pods(group) if (one.get("status") or {}).get("phase") not in _ENDED]
            graces = [float(one["spec"].get("terminationGracePeriodSeconds") or 0) for one in pods]
            seconds[0] = max([_GONE_SECONDS, *(grace + _MARGIN_SECONDS for grace in graces)])
            names = listed(map(name_of, pods))
            return f"{counted(len(pods), 'pod')} of {group}, {most} to stay: {names}" if len(pods) > most else ""

        self._wait(left, lambda: seconds[0])

    def _wait_for_loans(self, migration: Migration) -> None:
        """Until groups that borrowed the slots of the one that leaves have given them back, as fleet's scaler says."""

        def left() -> str:
            found = self.sides.cluster.deployments()
            counts = {name: int(found[name]["spec"].get("replicas") or 0) for name in migration.groups if name in found}
            taken = sum(count * migration.groups[name].unit for name, count in counts.items())
            slots = slots_there(migration)
            return (
                f"{counted(taken, 'slot')} in the cluster, {slots} to stay: others give back" if taken > slots else ""
            )

        self._wait(left, lambda: _GONE_SECONDS)

    def _wait(self, left: Callable[[], str], patience: Callable[[], float]) -> None:
        """Until nothing is left, in words; says what is. Raises NotReady after so many seconds, or Interrupted."""
        began, told = self.flags.now(), ""
        while text := left():
            if text != told:
                self.flags.say(text)
                told = text
            if number := self.flags.interrupted():
                hint = "run the same command again to go on"
                raise Interrupted("interrupted while pods drained", hint=hint, signum=number)
            limit = patience() if self.flags.timeout_seconds is None else self.flags.timeout_seconds
            if self.flags.now() - began > limit:
                raise NotReady(f"after {duration(limit)} there are still {text}")
            self.lock.renew()
            time.sleep(_POLL_SECONDS)

    def here(self, group: str = "") -> None:
        """Bring a group of this host to what it has now, and wait; the slots of others follow.

        Raises Refused where the budget does not allow it, and what a change of this host raises.
        """
        local = self.sides.local
        desired = local.desired_as_applied()
        change = local.steered(desired, only={group} | sharing(desired))
        budget.check(change.desired, change.plan, change.observed)
        applied = local.applied()
        if not change.plan.is_empty:
            self.walk(change)
        elif applied is not None and desired != applied.desired:
            local.keep_applied(replace(applied, desired=desired))
