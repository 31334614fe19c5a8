"""A change by hand to a fleet that belongs to somebody: who owns it is said, and what it takes is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.errors import Damaged, UsageError
from fleet.operate.sync import ownership
from fleet.operate.sync.orders import suspend, suspension_by_hand
from fleet.operate.sync.state import SourcePlaces, read_orders

if TYPE_CHECKING:
    from fleet.operate.local_fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says about the owner, by flags. ``files``: of the manifest; None where the verb takes none."""

    files: Sequence[str] | None
    adopt: bool = False
    suspend_seconds: float = 0.0
    reason: str = ""


def check(local: LocalFleet, claim: Claim) -> None:
    """Raise Refused where the fleet is another's, and UsageError for a suspension without a reason."""
    if claim.suspend_seconds and not claim.reason:
        raise UsageError(
            "--suspend needs --reason: it is shown to everybody who wonders", hint="--reason 'incident 412'"
        )
    if claim.adopt:
        return
    owner = ownership.owner_of(local)
    if owner is None or _is_suspended(local, owner, claim):
        return
    if claim.files is None and owner.kind == "files":
        return
    ownership.refuse_other(local.name, owner, ownership.of_files(claim.files or ()))


def take(local: LocalFleet, claim: Claim) -> str:
    """Do what the flags say about the owner; what to tell people, empty for nothing. Check first."""
    owner = _known_owner(local) if claim.adopt else ownership.owner_of(local)
    if owner is not None and owner.kind == "source" and not claim.adopt:
        if not claim.suspend_seconds:
            return f"note: the source {owner.name!r} takes the fleet back when its suspension ends"
        places = SourcePlaces.of(local.settings.home, owner.name)
        until = suspend(places, seconds=claim.suspend_seconds, reason=claim.reason, now=local.now())
        return f"note: the source {owner.name!r} keeps its hands off until {until}, then takes the fleet back"
    if claim.files is None:
        if claim.adopt and (owner is None or owner.kind == "source"):
            ownership.make_owner(local, ownership.of_files(()))
        return ""
    claimant = ownership.of_files(claim.files)
    if owner is None or not owner.is_same_as(claimant) or owner.files != claimant.files:
        ownership.make_owner(local, claimant)
    return ""


def _known_owner(local: LocalFleet) -> ownership.Owner | None:
    """As far as that can be read: it is taken over anyway."""
    try:
        return ownership.owner_of(local)
    except Damaged:
        return None


def _is_suspended(local: LocalFleet, owner: ownership.Owner, claim: Claim) -> bool:
    """Whether the owning source keeps its hands off, by this command or an earlier one."""
    if owner.kind != "source":
        return False
    orders = read_orders(SourcePlaces.of(local.settings.home, owner.name))
    return bool(claim.suspend_seconds) or bool(suspension_by_hand(orders, local.now()))
