"""The locks of ``logging`` that an exception from outside can leave taken.

Before Python 3.13 a handler takes its lock in one statement and enters the ``try`` that gives it back in the next. An
exception raised from outside between the two leaves the lock with the thread for good, and every thread that logs
waits for ever from then on. So after a task that may have been interrupted, its thread releases what it still holds: it
is in no call of ``logging`` then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any


def release_own() -> int:
    """Release the locks that the calling thread (or greenlet) holds; how many releases that took."""
    count = 0
    for lock in _locks():
        is_owned = getattr(lock, "_is_owned", None)
        while is_owned is not None and is_owned():
            lock.release()
            count += 1
    return count


def _locks() -> Iterator[Any]:
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference()
        if handler is not None and handler.lock is not None:
            yield handler.lock
    yield getattr(logging, "_lock", None)
