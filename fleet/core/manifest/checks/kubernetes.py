"""What ``spec.kubernetes`` names must be there."""

from __future__ import annotations

from fleet.core.manifest.checks.context import CheckContext
from fleet.core.text.format import shown
from fleet.core.text.suggest import did_you_mean


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
    for name in sorted(said.secrets):
        context.declared((*here, "secrets", name), name)
    for field in ("password", "host"):
        if secret := getattr(said.keda, field):
            context.declared((*here, "keda", field), secret)
