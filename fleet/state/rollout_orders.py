"""What a person tells the process that carries out a rollout: a small file that it reads between two looks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet.core.decode import decoded
from fleet.state.files import write_whole


@dataclass(frozen=True, slots=True)
class RolloutOrders:
    """For the rollout of one process, ``pid``; another one does not follow them.

    paused: begin nothing more.  promoted: canaries are not judged any more.  aborted: end, and go back to the last good
    revision.  by, reason: of the newest one, for people.
    """

    pid: int = 0
    paused: bool = False
    promoted: bool = False
    aborted: bool = False
    by: str = ""
    reason: str = ""

    @property
    def why(self) -> str:
        """``by ann: too slow``."""
        return f"by {self.by}" + (f": {self.reason}" if self.reason else "")


NO_ORDERS = RolloutOrders()


def read(path: Path, *, pid: int) -> RolloutOrders:
    """The orders for this process; a file that is missing, broken or for another process orders nothing."""
    try:
        orders = decoded(RolloutOrders, json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return NO_ORDERS
    return orders if orders.pid == pid else NO_ORDERS


def write(path: Path, orders: RolloutOrders) -> None:
    """Raises CannotWrite."""
    write_whole(path, json.dumps(asdict(orders), ensure_ascii=False), lasting=False)
