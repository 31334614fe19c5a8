"""Whether notifications arrive, for people and scripts."""

from __future__ import annotations

from typing import Any

from fleet.core.text.format import counted
from fleet.operate.notify.spool_file import read_spool
from fleet.state.paths import Places


def summary(places: Places) -> dict[str, Any]:
    """How many were sent, wait and were given up, and why the last attempt failed ('' where it did not)."""
    spool = read_spool(places)
    return {
        "sent": spool.sent,
        "waiting": len(spool.messages),
        "failing": len(spool.failing),
        "dropped": spool.dropped,
        "lastError": spool.error,
    }


def failing(places: Places) -> list[str]:
    """A line where notifications do not arrive; none where they do."""
    spool = read_spool(places)
    if not spool.error:
        return []
    waiting = f"{counted(len(spool.messages), 'message')} waiting" if spool.messages else "given up"
    ways = ", ".join(sorted({one.way for one in spool.failing}))
    return [f"notifications do not arrive: {waiting}{f' ({ways})' if ways else ''}; {spool.error}"]
