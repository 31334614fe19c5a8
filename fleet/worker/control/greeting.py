"""What a worker that starts learns from workers elsewhere: ids of revoked tasks, by Celery's ``hello``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from fleet.worker.loop.revoked import MOST, Revoked

log = logging.getLogger("fleet.worker")

VARIABLE = "FLEET_MINGLE_SECONDS"
SECONDS = 1.0
QUIET_SECONDS = 0.25
"""When no answer has come for so long, nobody else answers."""
LONGEST_ID = 255


def seconds_to_wait(environ: Mapping[str, str] = os.environ) -> float:
    """For what others tell, at most; 0: a worker that starts does not ask."""
    text = environ.get(VARIABLE, "")
    try:
        return max(0.0, float(text)) if text else SECONDS
    except ValueError:
        log.warning("%s=%r is no number of seconds: %g s are waited", VARIABLE, text, SECONDS)
        return SECONDS


def told_ids(told: object) -> list[str]:
    """The ids in what a worker says is revoked: a list, from older workers a mapping. Others' words: no more than fits
    is taken, the newest, which come last; what is no id is left out."""
    found = list(told)[-MOST:] if isinstance(told, list | tuple | Mapping) else []
    return [one for one in found if isinstance(one, str) and 0 < len(one) <= LONGEST_ID]


def learn(replies: Iterable[Any], revoked: Revoked, *, node: str) -> None:
    """Take in the ids of these replies, ``{node: {"revoked": ids}}`` each; ``node`` is this worker's own name."""
    tellers, fresh = 0, dict[str, None]()
    for name, reply in (pair for one in replies if isinstance(one, Mapping) for pair in one.items()):
        told = reply.get("revoked") if name != node and isinstance(reply, Mapping) else None
        ids = [one for one in told_ids(told) if one not in revoked]
        tellers += bool(ids)
        fresh.update(dict.fromkeys(ids))
    if fresh:
        revoked.add(fresh)
        log.info("%d revoked ids learned from %d workers elsewhere", len(fresh), tellers)
