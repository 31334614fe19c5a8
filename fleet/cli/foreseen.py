"""What is foreseen to fail of a plan, said under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.cli.output import Output
from fleet.core.plan import Action

if TYPE_CHECKING:
    from fleet.operate.local_fleet import PlannedChange

_STARTS = frozenset({Action.START, Action.REPLACE, Action.RESTART})


def say_foreseen(change: PlannedChange, out: Output) -> None:
    """Warn of what will fail of that which the plan starts."""
    starts = {step.target.group for step in change.plan.changes if step.target is not None and step.action in _STARTS}
    if not starts:
        return
    from fleet.inputs.foreseen import foreseen

    for one in foreseen(change.desired, change.secrets, only=starts):
        out.say(f"warning: {one}")
        out.say(f"  hint: {one.hint}")
