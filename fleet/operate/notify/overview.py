"""Whether notifications arrive, for people and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleet.core.text.format import counted
from fleet.state.files import stamp_of

if TYPE_CHECKING:
    from fleet.operate.notify.spool import Spool
    from fleet.state.paths import Places


def summary(places: Places) -> dict[str, Any]:
    """How many were sent, wait and were given up, and why the last attempt failed ('' where it did not)."""
    spool = _spool(places)
    if spool is None:
        return {"sent": 0, "waiting": 0, "failing": 0, "dropped": 0, "lastError": ""}
    return {
        "sent": spool.sent,
        "waiting": len(spool.messages),
        "failing": len(spool.failing),
        "dropped": spool.dropped,
        "lastError": spool.error,
    }


def failing(places: Places) -> list[str]:
    """A line where notifications do not arrive; none where they do."""
    spool = _spool(places)
    if spool is None or not spool.error:
        return []
    waiting = f"{counted(len(spool.messages), 'message')} waiting" if spool.messages else "given up"
    ways = ", ".join(sorted({one.way for one in spool.failing}))
    return [f"notifications do not arrive: {waiting}{f' ({ways})' if ways else ''}; {spool.error}"]


def _spool(places: Places) -> Spool | None:
    """None where nothing was ever to be sent, as in most fleets: most commands need no more than that."""
    if stamp_of(places.notifications) is None:
        return None
    from fleet.operate.notify.spool_file import read_spool

    return read_spool(places)
