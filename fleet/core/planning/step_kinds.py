"""What kind of change a step is to its group."""

from __future__ import annotations

from fleet.core.observed import Observed, State
from fleet.core.plan import Action, Step

CYCLES = frozenset({Action.REPLACE, Action.RESTART})
LEAVES = frozenset({Action.DRAIN, Action.STOP, Action.FORGET})
HOLDS = frozenset({Action.HOLD, Action.RELEASE})


def works(step: Step, observed: Observed) -> bool:
    """The replica does its work now (or is only held), so that stopping it is missed."""
    seen = observed.replicas.get(step.replica)
    return seen is not None and seen.running and not seen.trouble and (seen.state is State.READY or seen.held)


def runs(step: Step, observed: Observed) -> bool:
    """The replica has a process now."""
    seen = observed.replicas.get(step.replica)
    return seen is not None and seen.running
