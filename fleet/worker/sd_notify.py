"""The sd_notify protocol: tells the parent (systemd) that this process is ready, or stops."""

from __future__ import annotations

import os
import socket


def tell(*words: str) -> bool:
    """Send ``READY=1``, ``STOPPING=1``, ``STATUS=…`` to NOTIFY_SOCKET; whether it was sent. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address[0] == "@":  # systemd's spelling of an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto("\n".join(words).encode(), address)
    except OSError:
        return False
    return True
