"""A process that holds messages, steered line by line, so that tests can stop and kill it at the worst moment.

Commands on stdin: ``fetch N``, ``ack`` (all, or the first N), ``flush``, ``tend``, ``open``, ``holds``, ``loop`` (fetch
and acknowledge for ever, writing every value to the journal). Each answers one line of JSON on stdout.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleet.broker.channels import open_channel
from fleet.broker.channels.base import TEND_SECONDS, Channel, Kept
from fleet.broker.delivery import Delivery
from fleet.core.spec import QueueSpec


class Holder:
    """The test's side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, command: str) -> Any:
        """Send a command and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.process.kill()
        self.process.wait()


@contextmanager
def holder(
    url: str,
    queue: str,
    *,
    fleet: str,
    replica: str,
    lease: float = 15.0,
    prefix: str = "",
    journal: Path | None = None,
    unsent: Path | None = None,
) -> Iterator[Holder]:
    """Start one; it is killed in the end."""
    argv = [sys.executable, "-m", "tests.worker.holder", url, queue, fleet, replica, str(lease), str(journal)]
    argv += [prefix, str(unsent or "")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Holder(process)
        finally:
            process.kill()


def main(url: str, queue: str, fleet: str, replica: str, lease: str, journal: str, prefix: str, unsent: str) -> None:
    channel: Any = open_channel(
        url,
        queues=[QueueSpec(queue)],
        replica=replica,
        fleet=fleet,
        options={"global_keyprefix": prefix} if prefix else {},
    )
    if hasattr(channel, "_tending"):
        channel._tending.lease_seconds = float(lease)
        channel._held._kept = Kept(Path(unsent) if unsent else None)
    channel.open()
    held: list[Delivery] = []
    for line in sys.stdin:
        command, *arguments = line.split()
        answer: Any = None
        if command == "fetch":
            taken = channel.fetch(int(arguments[0]))
            held += taken
            answer = [json.loads(delivery.body) for delivery in taken]
        elif command == "ack":
            channel.ack(held[: int(arguments[0])] if arguments else held)
        elif command == "end":
            one = held[int(arguments[0]) - 1]
            answer = channel.ends.note_end(one, f"result of {json.loads(one.body)}".encode())
        elif command == "holds":
            answer = [channel.holds(delivery) for delivery in held]
        elif command == "loop":
            _loop(channel, journal)
        else:
            getattr(channel, command)()
        print(json.dumps(answer), flush=True)


def _loop(channel: Channel, journal: str) -> None:
    """What a late-acknowledging worker does, three slots wide."""
    with open(journal, "ab", buffering=0) as log:
        while True:
            deliveries = channel.fetch(3)
            for delivery in deliveries:
                os.write(log.fileno(), f"{json.loads(delivery.body)}\n".encode())
            channel.ack(deliveries)
            channel.tend()
            if not deliveries:
                select.select(channel.wait_fds(), [], [], min(TEND_SECONDS, channel.poll_seconds or TEND_SECONDS))


if __name__ == "__main__":
    main(*sys.argv[1:])
