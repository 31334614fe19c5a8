"""A program that is not a worker: it tells the time until it is asked to stop, and the fleet keeps it running."""

from __future__ import annotations

import signal
import sys
import threading
from datetime import UTC, datetime

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())

while not stopping.is_set():
    print(datetime.now(UTC).isoformat(timespec="seconds"), flush=True)
    stopping.wait(5)
sys.exit(0)
