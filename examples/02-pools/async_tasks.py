"""The same two tasks as coroutines, for the asyncio pool."""

from __future__ import annotations

import asyncio
import hashlib

from tasks import done

from fleet import Tasks

tasks = Tasks("pools")


@tasks.task(name="wait")
async def wait(seconds: float) -> None:
    """Wait for somebody else, and let the others go on."""
    await asyncio.sleep(seconds)
    done()


@tasks.task(name="compute")
async def compute(rounds: int) -> None:
    """Keep one processor busy; nobody else gets a turn meanwhile."""
    digest = b""
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    done()
