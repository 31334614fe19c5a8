"""Carries out a change in a cluster: keeps the revision, applies object by object, waits, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from fleet.backends.kubernetes import jobs
from fleet.backends.kubernetes.client import ApiRefused
from fleet.backends.kubernetes.kinds import DEPLOYMENT, JOB, OWNED, SCALED_OBJECT, label_of, name_of, place_in_order
from fleet.backends.kubernetes.names import selector_of
from fleet.backends.kubernetes.object_plan import Deed, ObjectChange
from fleet.backends.kubernetes.rollout_state import RolloutState, rollout_state, troubles
from fleet.core.expand.facts import Facts
from fleet.core.expand.in_cluster import cluster_of
from fleet.core.text.format import counted, duration, listed
from fleet.errors import FleetError, Interrupted, NotReady, Refused, RolloutFailed
from fleet.inputs.manifest import from_revision
from fleet.operate.cluster.cluster_fleet import ClusterFleet, Look
from fleet.operate.cluster.compare import HANDOVER_MANAGER
from fleet.operate.cluster.lock import ClusterLock
from fleet.state.audit import who

_KINDS = {kind.name: kind for kind in OWNED}
_GROUP = "app.kubernetes.io/name"
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


class GroupsFailed(RolloutFailed):
    """Which groups failed: ``groups``. revision: the one that was being applied."""

    def __init__(self, message: str, *, hint: str, groups: Collection[str]) -> None:
        super().__init__(message, hint=hint)
        self.groups = frozenset(groups)
        self.revision = 0


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
    names = [name_of(one) for one in look.wanted.values() if one["kind"] == DEPLOYMENT.name]
    try:
        _change_objects(fleet, look, flags, lock)
        if not flags.wait:
            return revision
        wait_for(fleet, names, flags, lock=lock, verdicts=_verdicts_before(look))
    except GroupsFailed as error:
        fleet.history.conclude(revision, "failed", failure=error.message.partition("\n")[0])
        error.revision = revision
        raise
    fleet.history.conclude(revision, "good")
    return revision


def apply_or_go_back(fleet: ClusterFleet, look: Look, flags: Flags, *, lock: ClusterLock) -> int:
    """As :func:`apply_look`; where a group fails that says ``onFailure: rollback``, back to the last revision that
    worked. Raises RolloutFailed, which says so, all the same."""
    try:
        return apply_look(fleet, look, flags, lock=lock)
    except GroupsFailed as failure:
        good = fleet.history.last_good(before=failure.revision)
        if good is None or not _wants_back(look, failure):
            raise
        raise _went_back(fleet, good.number, failure, flags, lock) from failure


def _wants_back(look: Look, failure: GroupsFailed) -> bool:
    groups = look.desired.groups if look.desired is not None else {}
    return any(name in groups and groups[name].rollout.on_failure == "rollback" for name in failure.groups)


def _went_back(fleet: ClusterFleet, good: int, failure: GroupsFailed, flags: Flags, lock: ClusterLock) -> RolloutFailed:
    flags.say(f"{failure.message}\nback to revision {good}")
    loaded = from_revision(fleet.history.get(good), message=f"back to revision {good} after a failed rollout")
    try:
        apply_look(fleet, fleet.planned(loaded, prune=True), flags, lock=lock)
    except Interrupted:
        raise
    except FleetError as second:
        text = f"{failure.message}\nand the way back to revision {good} failed too:\n{second.message}"
        return RolloutFailed(text, hint=second.hint)
    hint = "`fleet history` shows both; mend the cause and apply again"
    return RolloutFailed(f"{failure.message}\nrolled back to revision {good}", hint=hint, rolled_back=True)


def _verdicts_before(look: Look) -> dict[str, str]:
    """Name -> what the cluster last said of the rollout of each Deployment that begins another one now."""
    changed = {one.reference for one in look.plan.changes if one.deed is Deed.CHANGE and one.kind == DEPLOYMENT.name}
    return {name_of(one): rollout_state(one).verdict for name, one in look.live.items() if name in changed}


def _change_objects(fleet: ClusterFleet, look: Look, flags: Flags, lock: ClusterLock) -> None:
    """First what goes before anything else, then what waits for no Job; what does, once its Jobs are complete."""
    first, free, waiting, last = _in_order(look)
    _change_each((*first, *free), fleet, look, flags, lock)
    if flags.wait:
        wait_for_jobs(fleet, look, flags, lock=lock)
    _change_each((*waiting, *last), fleet, look, flags, lock)


def _in_order(look: Look) -> tuple[list[ObjectChange], ...]:
    """The changes in four parts: a scaler that stayed would count against what is applied next, and a Job of before
    may still run; what waits for no Job; what does; and what goes at the end."""
    parts: tuple[list[ObjectChange], ...] = ([], [], [], [])
    groups = _groups_that_wait(look)
    for one in look.plan.changes:
        if one.deed is Deed.REMOVE:
            parts[0 if one.kind in (SCALED_OBJECT.name, JOB.name) else 3].append(one)
        else:
            parts[2 if one.group in groups and place_in_order(one.kind) > place_in_order(JOB.name) else 1].append(one)
    return parts


def _groups_that_wait(look: Look) -> set[str]:
    """Groups with a Deployment whose pods wait for Jobs."""
    made = (one for one in look.wanted.values() if one["kind"] == DEPLOYMENT.name)
    return {label_of(one, "app.kubernetes.io/name") for one in made if any(jobs.selectors_in(one))}


def _change_each(
    changes: Iterable[ObjectChange], fleet: ClusterFleet, look: Look, flags: Flags, lock: ClusterLock
) -> None:
    for one in changes:
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
    if change.deed is Deed.CHANGE and kind == JOB and jobs.failure(look.live.get(change.reference) or {}):
        _remove_and_wait(fleet, change, flags)
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


def _remove_and_wait(fleet: ClusterFleet, change: ObjectChange, flags: Flags) -> None:
    """A Job is not changed once it has ended: it goes, and comes again."""
    kind = _KINDS[change.kind]
    fleet.cluster.delete(kind, change.name)
    while fleet.cluster.get(kind, change.name) is not None:
        _stop_if_interrupted(flags, f"while {change.reference} went")
        time.sleep(_GONE_POLL_SECONDS)


# --- waiting


def wait_for_jobs(fleet: ClusterFleet, look: Look, flags: Flags, *, lock: ClusterLock) -> None:
    """Until all Jobs of the manifest are complete; says when each is, and what keeps a pod from running.

    Raises RolloutFailed where one fails, NotReady after the ``health.readyTimeout`` of the slowest, Interrupted.
    """
    made = (one for one in look.wanted.values() if one["kind"] == JOB.name and not one["spec"].get("suspend"))
    groups = {name_of(one): label_of(one, _GROUP) for one in made}
    if not groups:
        return
    began, told = flags.now(), set[str]()

    def say(line: str) -> None:
        if line not in told:
            told.add(line)
            flags.say(line)

    limit = flags.timeout_seconds if flags.timeout_seconds is not None else _job_seconds(look, groups)
    for found in fleet.cluster.changes(JOB, selector_of(fleet.name)):
        there = {name_of(one): one for one in found if name_of(one) in groups}
        late = sorted(name for name in groups if not jobs.is_complete(there.get(name) or {}))
        for name in sorted(groups.keys() - set(late)):
            say(f"{name}: complete")
        if not late:
            return
        if failed := {name: why for name in late if (why := jobs.failure(there.get(name) or {}))}:
            raise _job_failed(failed, groups, look)
        for trouble in troubles(fleet.pods()):
            say(trouble)
        _stop_if_interrupted(flags, "while a job ran")
        if flags.now() - began > limit:
            hint = "`fleet logs` shows what they do"
            raise NotReady(f"after {duration(limit)} these jobs still run: {listed(late)}", hint=hint)
        lock.renew()


def _job_seconds(look: Look, groups: Mapping[str, str]) -> float:
    """How long the slowest of these jobs may take. ``groups``: Job -> its group."""
    wanted = look.desired.groups if look.desired is not None else {}
    return max(wanted[group].ready_timeout_seconds for group in groups.values())


def _job_failed(failed: Mapping[str, str], groups: Mapping[str, str], look: Look) -> GroupsFailed:
    """``failed``: Job -> why."""
    lines = "; ".join(f"{name}: {why}" for name, why in sorted(failed.items()))
    waiting = sorted(_groups_that_wait(look))
    rest = f"; what waits for jobs was not changed: {listed(waiting)}" if waiting else ""
    hint = f"`fleet logs {groups[min(failed)]}` shows why; the next apply runs it again"
    return GroupsFailed(f"a job failed: {lines}{rest}", hint=hint, groups={groups[name] for name in failed})


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

    def _failed(self, failed: list[RolloutState]) -> GroupsFailed:
        lines = [f"{state.name}: {state.failed}" for state in failed]
        names = listed(state.name for state in failed)
        message = f"the rollout of {names} failed: " + "; ".join(lines) + self._why()
        return GroupsFailed(message, hint=_HINT, groups=[state.group for state in failed])

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
