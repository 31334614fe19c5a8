"""The file in which the sender of notifications remembers; whoever shows it needs nothing of the sending."""

from __future__ import annotations

import json

from fleet.core.decode import decoded
from fleet.file_access import KEPT_BYTES, read_file
from fleet.operate.notify.spool import Spool
from fleet.state.paths import Places


def read_spool(places: Places) -> Spool:
    """What is remembered; where that cannot be read, nothing is, and news are told from now on."""
    try:
        return decoded(Spool, json.loads(read_file(places.notifications, limit_bytes=KEPT_BYTES, own=True)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Spool()
