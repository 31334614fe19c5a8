"""Carries out a change in a cluster: keeps the revision, applies object by object, waits, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from fleet.backends.kubernetes.client import ApiRefused
from fleet.backends.kubernetes.kinds import DEPLOYMENT, OWNED, SCALED_OBJECT, name_of
from fleet.backends.kubernetes.names import selector_of
from fleet.backends.kubernetes.object_plan import Deed, ObjectChange
from fleet.backends.kubernetes.rollout_state import RolloutState, rollout_state, troubles
from fleet.core.expand.facts import Facts
from fleet.core.expand.in_cluster import cluster_of
from fleet.core.text.format import counted, duration, listed
from fleet.errors import Interrupted, NotReady, Refused, RolloutFailed
from fleet.operate.cluster.cluster_fleet import ClusterFleet, Look
from fleet.operate.cluster.compare import HANDOVER_MANAGER
from fleet.operate.cluster.lock import ClusterLock
from fleet.state.audit import who

_KINDS = {kind.name: kind for kind in OWNED}
_GONE_POLL_SECONDS = 0.5
_MARGIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Flags:
    """How a change is made. ``timeout_seconds`` None: as long as the Deployments may take by themselves.

    say: told what happens, one line each.  interrupted: the number of a signal that came, or 0.
    """

    say: Callable[[str], None]
    wait: bool = True
    timeout_seconds: float | None = None
    force_ownership: bool = False
    reason: str = ""
    interrupted: Callable[[], int] = lambda: 0
    now: Callable[[], float] = field(default=time.monotonic)


def refuse_conflicts(look: Look, *, force: bool) -> None:
    """Raise Refused for objects that are another's, unless they are to be taken."""
    conflicts = look.plan.conflicts
    if not conflicts or force:
        return
    lines = [f"{one.reference}: {conflict}" for one in conflicts for conflict in one.conflicts]
    raise Refused(
        f"{counted(len(conflicts), 'object')} of fleet {look.plan.fleet} belong to somebody else:\n  "
        + "\n  ".join(lines),
        hint="let that owner go first (for Flux and Argo CD: change the repository), or take them: --force-ownership",
    )


def apply_look(fleet: ClusterFleet, look: Look, flags: Flags, *, lock: ClusterLock) -> int:
    """Bring the cluster to the manifest of a look; the number of its revision. The caller holds the lock.

    Raises Refused, RolloutFailed, NotReady or Interrupted.
    """
    loaded = look.manifest
    if loaded is None:
        raise ValueError("a look without a manifest")
    refuse_conflicts(look, force=flags.force_ownership)
    facts = Facts(python="", own_python="", workdir=cluster_of(loaded.manifest).workdir)
    message = loaded.message or flags.reason
    origin = replace(loaded.origin, base="")  # of another machine next time, and a pod has no use for it
    revision = fleet.history.record(loaded.document, origin=origin, by=who(), message=message, facts=facts).number
    _change_objects(fleet, look, flags, lock)
    if not flags.wait:
        return revision
    names = [name_of(one) for one in look.wanted.values() if one["kind"] == DEPLOYMENT.name]
    try:
        wait_for(fleet, names, flags, lock=lock, verdicts=_verdicts_before(look))
    except RolloutFailed as error:
        fleet.history.conclude(revision, "failed", failure=error.message.partition("\n")[0])
        raise
    fleet.history.conclude(revision, "good")
    return revision


def _verdicts_before(look: Look) -> dict[str, str]:
    """Name -> what the cluster last said of the rollout of each Deployment that begins another one now."""
    changed = {one.reference for one in look.plan.changes if one.deed is Deed.CHANGE and one.kind == DEPLOYMENT.name}
    return {name_of(one): rollout_state(one).verdict for name, one in look.live.items() if name in changed}


def _change_objects(fleet: ClusterFleet, look: Look, flags: Flags, lock: ClusterLock) -> None:
    changes = look.plan.changes
    scalers = [one for one in changes if one.deed is Deed.REMOVE and one.kind == SCALED_OBJECT.name]
    rest = [one for one in changes if one not in scalers]
    for one in (*scalers, *rest):  # a scaler that stayed would count against what is applied next
        _stop_if_interrupted(flags, "between two objects")
        lock.renew()
        if one.deed is Deed.REMOVE:
            fleet.cluster.delete(_KINDS[one.kind], one.name)
        else:
            _apply(fleet, look, one, flags)
        flags.say(f"{_PAST[one.deed]} {one.reference}")


_PAST = {Deed.CREATE: "created", Deed.CHANGE: "changed", Deed.REMOVE: "removed"}


def _apply(fleet: ClusterFleet, look: Look, change: ObjectChange, flags: Flags) -> None:
    kind, wanted = _KINDS[change.kind], look.wanted[change.reference]
    if change.reference in look.keeps_count:
        # A field that nobody owns falls back to one pod: another manager keeps the number until the scaler sets one.
        count = look.live[change.reference]["spec"]["replicas"]
        kept = {"apiVersion": kind.api, "kind": kind.name, "metadata": {"name": change.name}}
        fleet.cluster.apply(kind, {**kept, "spec": {"replicas": count}}, manager=HANDOVER_MANAGER, force=True)
    force = flags.force_ownership or change.reference in look.forced
    try:
        fleet.cluster.apply(kind, wanted, force=force)
    except ApiRefused as error:
        if error.status != 409:
            raise
        raise Refused(f"{change.reference} was changed meanwhile: {error.message}", hint="plan again") from error


# --- waiting


def wait_for(
    fleet: ClusterFleet,
    names: Collection[str],
    flags: Flags,
    *,
    lock: ClusterLock | None = None,
    verdicts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Until these Deployments are rolled out; says how far each is whenever that changes.

    verdicts: of earlier rollouts, by name, which say nothing about this one.
    Raises RolloutFailed where the cluster gives one up, NotReady at the end of the time, Interrupted.
    """
    if not names:
        return
    waiting = _Waiting(fleet, flags, verdicts)
    for deployments in fleet.cluster.changes(DEPLOYMENT, selector_of(fleet.name)):
        states = {one.name: one for one in map(rollout_state, deployments) if one.name in names}
        limit = max((_limit_seconds(one) for one in deployments if name_of(one) in names), default=0.0)
        if waiting.is_over(states, names, limit_seconds=limit):
            return
        if lock is not None:
            lock.renew()


def _limit_seconds(deployment: dict[str, object]) -> float:
    spec = deployment["spec"]
    assert isinstance(spec, dict)
    grace = spec["template"]["spec"].get("terminationGracePeriodSeconds") or 0
    return float(spec.get("progressDeadlineSeconds") or 600) + float(grace) + _MARGIN_SECONDS


class _Waiting:
    """What was said already, and since when it waits."""

    def __init__(self, fleet: ClusterFleet, flags: Flags, verdicts: Mapping[str, str]) -> None:
        self._fleet = fleet
        self._verdicts = verdicts
        self._flags = flags
        self._began = flags.now()
        self._said: dict[str, str] = {}
        self._troubles: set[str] = set()

    def is_over(self, states: dict[str, RolloutState], names: Collection[str], *, limit_seconds: float) -> bool:
        for name, state in sorted(states.items()):
            if self._said.get(name) != str(state):
                self._said[name] = str(state)
                self._flags.say(f"{name}: {state}")
        missing = sorted(set(names) - states.keys())
        if not missing and all(state.is_done for state in states.values()):
            return True
        if failed := [state for state in states.values() if self._has_failed(state)]:
            raise self._failed(failed)
        self._tell_troubles()
        _stop_if_interrupted(self._flags, "while pods started")
        late = [*missing, *(name for name, state in sorted(states.items()) if not state.is_done)]
        limit = self._flags.timeout_seconds if self._flags.timeout_seconds is not None else limit_seconds
        if self._flags.now() - self._began > limit:
            raise NotReady(f"not rolled out after {duration(limit)}: {listed(late)}{self._why()}", hint=_HINT)
        return False

    def _has_failed(self, state: RolloutState) -> bool:
        """Whether the cluster gave up what it was told now, and not something before."""
        return state.seen and bool(state.failed) and state.verdict != self._verdicts.get(state.name, "")

    def _tell_troubles(self) -> None:
        for trouble in troubles(self._fleet.pods()):
            if trouble not in self._troubles:
                self._troubles.add(trouble)
                self._flags.say(trouble)

    def _failed(self, failed: list[RolloutState]) -> RolloutFailed:
        lines = [f"{state.name}: {state.failed}" for state in failed]
        names = listed(state.name for state in failed)
        return RolloutFailed(f"the rollout of {names} failed: " + "; ".join(lines) + self._why(), hint=_HINT)

    def _why(self) -> str:
        found = list(troubles(self._fleet.pods()))[:5]
        return "".join(f"\n  {one}" for one in found)


_HINT = "`fleet logs` and `fleet status` show why; `fleet rollback` goes back to the last revision that worked"


def _stop_if_interrupted(flags: Flags, where: str) -> None:
    if number := flags.interrupted():
        hint = "run the same command again to go on; the cluster finishes what it was told"
        raise Interrupted(f"interrupted {where}", hint=hint, signum=number)


def take_down(fleet: ClusterFleet, look: Look, flags: Flags, *, lock: ClusterLock) -> None:
    """Remove everything the fleet owns and wait until its pods have drained and gone; revisions stay."""
    refuse_conflicts(look, force=flags.force_ownership)
    _change_objects(fleet, look, flags, lock)
    if not flags.wait:
        return
    for left in _pods_left(fleet, flags):
        lock.renew()
        flags.say(f"{counted(len(left), 'pod')} drain: {listed(left)}")


def _pods_left(fleet: ClusterFleet, flags: Flags) -> Iterator[list[str]]:
    """The names of the pods that are left, whenever they change, until there are none."""
    began, told = flags.now(), None
    while left := [name_of(one) for one in fleet.pods()]:
        if left != told:
            told = left
            yield left
        _stop_if_interrupted(flags, "while pods drained")
        if flags.timeout_seconds is not None and flags.now() - began > flags.timeout_seconds:
            raise NotReady(f"after {duration(flags.timeout_seconds)} there are still pods: {listed(left)}")
        time.sleep(_GONE_POLL_SECONDS)
