"""What ``spec.kubernetes`` names must be there, and what it says of a group must fit that group."""

from __future__ import annotations

from fleet.core.manifest.checks.context import CheckContext
from fleet.core.manifest.models import Group
from fleet.core.text.format import shown
from fleet.core.text.suggest import did_you_mean
from pools.traits import TRAITS


def kubernetes(context: CheckContext) -> None:
    """Groups and secrets under ``spec.kubernetes`` are those of the fleet."""
    said = context.manifest.spec.kubernetes
    if said is None:
        return
    here = ("spec", "kubernetes")
    known = context.names("spec", "groups")
    for name in sorted(set(said.groups) - set(known)):
        hint = did_you_mean(name, known) or "remove it, or declare the group under spec.groups"
        context.problem((*here, "groups", name), f"there is no group {shown(name)}", hint)
    for name, own in sorted(said.groups.items()):
        if own.pack is not None and own.pack > 1 and name in context.manifest.spec.groups:
            _packed(context, name, own.pack)
    for name in sorted(said.secrets):
        context.declared((*here, "secrets", name), name)
    for field in ("password", "host"):
        if secret := getattr(said.keda, field):
            context.declared((*here, "keda", field), secret)


def _packed(context: CheckContext, name: str, pack: int) -> None:
    """Several replicas in a pod: of workers only, and one pod must not have more slots than the whole group may."""
    path, group = ("spec", "kubernetes", "groups", name, "pack"), context.manifest.spec.groups[name]
    if context.is_broken("spec", "groups", name) or context.is_broken(*path):
        return
    if group.command is not None:
        hint = "remove pack; replicas says how many pods there are"
        context.problem(path, f"group {shown(name)} is a command, and pack is for workers", hint)
        return
    bounds, slots = group.autoscale or group.share, pack * (_replica_slots(group) or 1)
    if bounds is not None and bounds.max is not None and slots > bounds.max:
        field = "autoscale" if group.autoscale is not None else "share"
        message = f"one pod of {pack} replicas has {slots} slots, and {field}.max of {shown(name)} is {bounds.max}"
        context.problem(path, message, "lower pack, or raise max")


def _replica_slots(group: Group) -> int | None:
    """Slots of a full replica; None where the manifest leaves them open."""
    pool = group.pool
    if pool is None or pool.type is None:
        return None
    return TRAITS[pool.type].fixed_slots or pool.concurrency
