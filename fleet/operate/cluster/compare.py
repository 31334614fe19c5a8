"""One wanted object against the cluster: what an apply would change, why, and whose fields it would take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.backends.kubernetes import object_plan
from fleet.backends.kubernetes.client import FIELD_MANAGER, ApiRefused, Cluster
from fleet.backends.kubernetes.jobs import failure
from fleet.backends.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, JOB, SCALED_OBJECT, kind_of, name_of, reference
from fleet.backends.kubernetes.names import DIGEST
from fleet.backends.kubernetes.object_plan import Deed, Difference, ObjectChange, change_of
from fleet.backends.kubernetes.pod_template import SPEC_FILE
from fleet.errors import FleetError, Refused

Object = dict[str, Any]

HANDOVER_MANAGER, RESTART_MANAGER, SCALE_MANAGER = "fleet-handover", "fleet-restart", "fleet-scale"
_OWN_MANAGERS = frozenset({FIELD_MANAGER, HANDOVER_MANAGER, RESTART_MANAGER, SCALE_MANAGER})
_REPLICAS = ("spec", "replicas")
_REPLICAS_PATH = "spec.replicas"


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found of one object, see ``Look``."""

    change: ObjectChange
    is_forced: bool = False
    keeps_count: bool = False


def compared(cluster: Cluster, wanted: Object, owned: Mapping[str, Object], goes: set[str]) -> Compared:
    """What an apply would make of one object, by a dry run; ``goes``: references of what the same plan removes."""
    live = owned.get(reference(wanted)) or cluster.get(kind_of(wanted), name_of(wanted))
    if live is None:
        _tried(cluster, wanted, force=False)
        return Compared(change_of(Deed.CREATE, wanted, reason="not there yet"))
    if wanted["kind"] == JOB.name and reference(wanted) in owned and (why := failure(live)):
        return Compared(change_of(Deed.CHANGE, wanted, reason=f"it failed and runs again: {why}"))
    moves = _moves_to_scaler(wanted, live)
    asked = _with_count(wanted, live["spec"]["replicas"]) if moves else wanted
    foreign = () if reference(wanted) in owned else (f"it is not fleet's, but {_managers(live)}'s",)
    owner = object_plan.gitops_owner(live)
    conflicts = [*foreign, *([f"{owner} keeps it"] if owner else [])]
    forced = False
    try:
        after = _tried(cluster, asked, force=False)
    except ApiRefused as error:
        if error.status != 409:
            raise
        others = _of_others(object_plan.conflicts_of(error.details), freed=_scaler(wanted) in goes)
        conflicts += others
        forced = not others
        after = _tried(cluster, asked, force=True)
    fields = object_plan.differences(live, after)
    deed = Deed.CHANGE if fields or moves else Deed.KEEP
    if moves:
        fields = (*fields, Difference(_REPLICAS_PATH, str(live["spec"]["replicas"]), ""))
    why = object_plan.reason_of(wanted["kind"], fields) if fields else "as wanted"
    change = change_of(deed, wanted, reason=why, fields=fields, conflicts=tuple(conflicts))
    return Compared(change, forced, moves)


def _moves_to_scaler(wanted: Object, live: Object) -> bool:
    if wanted["kind"] != DEPLOYMENT.name or "replicas" in wanted["spec"]:
        return False
    return object_plan.owns(live, FIELD_MANAGER, _REPLICAS)


def _tried(cluster: Cluster, one: Object, *, force: bool) -> Object:
    """The object as the server would make it. Raises Refused for what it does not know or take."""
    try:
        return cluster.apply(kind_of(one), one, dry_run=True, force=force)
    except ApiRefused as error:
        if (told := _told(cluster, error, one)) is None:
            raise
        raise told from error


def _told(cluster: Cluster, error: ApiRefused, one: Object) -> FleetError | None:
    """The refusal in words that say what to do; None where the server's own words do."""
    if error.status == 404 and one["kind"] == "RoleBinding":
        hint = "the verb `bind` on roles lets an apply bind a role that it makes: docs/kubernetes.md has all rights"
        return Refused(f"{reference(one)} cannot be tried before its Role is there", hint=hint)
    if error.status == 404:
        hint = "install KEDA, or write `replicas` instead of `autoscale`" if "keda" in one["apiVersion"] else ""
        return Refused(
            f"the cluster of context {cluster.place.context!r} does not know {one['kind']} of {one['apiVersion']}",
            hint=hint or "use a newer cluster",
        )
    if error.status in (400, 422):
        return Refused(f"the cluster refuses {reference(one)}: {error.message}", hint="look at the group's `patch`")
    return None


def explained(change: ObjectChange, live: Mapping[str, Object], wanted: Mapping[str, Object]) -> ObjectChange:
    """A Deployment whose pods are replaced says which fields of its workers differ."""
    before, after = live.get(change.reference), wanted[change.reference]
    if change.kind != DEPLOYMENT.name or change.deed is not Deed.CHANGE or before is None:
        return change
    names = [next(iter(config_maps(one)), "") for one in (before, after)]
    old, new = (source.get(f"{CONFIG_MAP.name}/{name}") for source, name in zip((live, wanted), names, strict=True))
    if names[0] == names[1] or old is None or new is None:
        return change
    specs = [{"metadata": {}, **_read(one["data"])} for one in (old, new)]
    fields = object_plan.differences(*specs)
    rest = [one for one in change.fields if not _follows_spec(one)]
    return replace(change, fields=(*fields, *rest))


def _read(data: Mapping[str, str]) -> dict[str, Any]:
    """What is in a ConfigMap of fleet's: the spec of a worker, or the manifest of the controller."""
    return {"worker" if name == SPEC_FILE else "manifest": json.loads(text) for name, text in data.items()}


def _of_others(conflicts: Sequence[str], *, freed: bool) -> list[str]:
    """Conflicts with anybody but fleet itself; ``freed``: the scaler that owned the number of pods goes."""
    others = [one for one in conflicts if one.rpartition(" is ")[2].removesuffix("'s") not in _OWN_MANAGERS]
    return [one for one in others if not (freed and one.startswith(f"{_REPLICAS_PATH} is "))]


def _scaler(wanted: Object) -> str:
    return f"{SCALED_OBJECT.name}/{name_of(wanted)}" if wanted["kind"] == DEPLOYMENT.name else ""


def _with_count(deployment: Object, replicas: int) -> Object:
    return {**deployment, "spec": {**deployment["spec"], "replicas": replicas}}


def _managers(live: Object) -> str:
    return ", ".join(sorted({name for name in object_plan.managers_of(live) if name})) or "somebody else"


def config_maps(owner: Object) -> Iterator[str]:
    """The ConfigMaps that the pods of a Deployment or ReplicaSet read."""
    for volume in owner["spec"]["template"]["spec"].get("volumes") or ():
        if (source := volume.get("configMap")) is not None:
            yield str(source["name"])


def _follows_spec(field: Difference) -> bool:
    """What differs only because the spec does: its digest, and the name of the ConfigMap."""
    return field.path.endswith(DIGEST) or field.path.endswith("spec.configMap.name")
