"""What an image waits, asks and forks by: the calls of the standard library as they are without a patch.

Those of a patched process would run its event loop, and with it what the app has put there for its workers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from pools.patching import unpatched

Socket: type[socket.socket] = unpatched("socket", "socket")
poll: Callable[[], Any] = unpatched("select", "poll")
fork: Callable[[], int] = unpatched("os", "fork")
close: Callable[[int], None] = unpatched("os", "close")
waitpid: Callable[[int, int], tuple[int, int]] = unpatched("os", "waitpid")


def accept(listener: socket.socket) -> socket.socket:
    """The next connection. What ``accept`` itself returns is patched, and leaves calls to the event loop."""
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    return Socket(fileno=descriptor)
