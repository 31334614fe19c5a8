"""What the broker costs a worker: messages per second through each channel and through stock kombu, interleaved.

A queue is filled, then one process fetches, decodes the envelope and acknowledges until it is empty. Nothing is run, so
this is the ceiling of a worker on that channel. Idle latency: from sending to the fetch that brings the message.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import figures
import servers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet.broker.channels import open_channel
from fleet.broker.message import build
from fleet.broker.publisher import Outgoing, Publisher
from fleet.core.spec import QueueSpec

Drain = Callable[[str, str, int], int]


def fleet_channel(width: int, *, slots: int) -> Drain:
    """Fetch up to ``width``, acknowledge, again."""

    def drain(url: str, queue: str, total: int) -> int:
        channel = open_channel(url, queues=[QueueSpec(queue)], replica="b.0", fleet="bench", prefetch_hint=slots)
        channel.open()
        seen = 0
        while seen < total:
            deliveries = channel.fetch(width)
            if not deliveries:
                select.select(channel.wait_fds(), [], [], channel.poll_seconds or 1.0)
                continue
            seen += len(deliveries)
            channel.ack(deliveries)
        channel.flush()
        channel.close()
        return seen

    return drain


def stock_kombu(prefetch: int) -> Drain:
    """kombu's own consumer, each message acknowledged."""

    def drain(url: str, queue: str, total: int) -> int:
        import kombu

        seen = 0

        def on_message(message: Any) -> None:
            nonlocal seen
            seen += 1
            message.ack()

        with kombu.Connection(url) as connection:
            entity = kombu.Queue(queue, kombu.Exchange(queue), routing_key=queue)
            with kombu.Consumer(connection, [entity], on_message=on_message, prefetch_count=prefetch):
                while seen < total:
                    connection.drain_events(timeout=5)
        return seen

    return drain


CONTENDERS: dict[str, Drain] = {
    "stock kombu, prefetch 1": stock_kombu(1),
    "stock kombu, prefetch 100": stock_kombu(100),
    "fleet, fetch 1": fleet_channel(1, slots=1),
    "fleet, fetch 1, window 10": fleet_channel(1, slots=10),
    "fleet, fetch 10": fleet_channel(10, slots=10),
    "fleet, fetch 100": fleet_channel(100, slots=100),
}


def fill(url: str, queue: str, total: int) -> float:
    """Send ``total`` tasks; gives how many a second."""
    messages = [Outgoing(queue, *build("bench.task", [n], {"a": "b"})) for n in range(total)]
    with Publisher(url) as publisher:
        start = time.perf_counter()
        publisher.send_many(messages)
        return total / (time.perf_counter() - start)


def latency_ms(url: str, samples: int) -> list[float]:
    """From sending to having it, on an idle channel."""
    queue = f"bench-{uuid4().hex[:6]}"
    channel = open_channel(url, queues=[QueueSpec(queue)], replica="b.0", fleet="bench")
    channel.open()
    found = []
    with Publisher(url) as publisher:
        for _ in range(samples):
            assert not channel.fetch(1)
            time.sleep(0.002)
            start = time.perf_counter()
            publisher.send(Outgoing(queue, b"[]"))
            while not (deliveries := channel.fetch(1)):
                select.select(channel.wait_fds(), [], [], channel.poll_seconds or 1.0)
            found.append((time.perf_counter() - start) * 1000)
            channel.ack(deliveries)
    channel.close()
    return found


def measure(url: str, *, total: int, runs: int) -> dict[str, Any]:
    """Every contender in turn, ``runs`` times."""
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    costs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    sending = []
    for _ in range(runs):
        for name, drain in CONTENDERS.items():
            queue = f"bench-{uuid4().hex[:6]}"
            sending.append(fill(url, queue, total))
            start, cpu = time.perf_counter(), time.process_time()
            drain(url, queue, total)
            rates[name].append(total / (time.perf_counter() - start))
            costs[name].append((time.process_time() - cpu) / total * 1e6)
    return {
        "messages_per_second": {name: figures.spread(values, digits=0) for name, values in rates.items()},
        "cpu_us_per_message": {name: figures.spread(values, digits=1) for name, values in costs.items()},
        "sent_per_second": figures.spread(sending, digits=0),
        "idle_latency_ms": figures.spread(latency_ms(url, 300)),
    }


def main() -> None:
    """Measure both brokers, print a table, write the result."""
    given = figures.arguments(__doc__, runs=5)
    total = 2000 if given.quick else 8000
    results = {}
    for name, server in (("redis", servers.redis), ("rabbitmq", servers.rabbitmq)):
        with server() as url:
            results[name] = measure(url, total=total, runs=given.runs)
    for name, result in results.items():
        print(name)
        for contender, rate in result["messages_per_second"].items():
            cost = result["cpu_us_per_message"][contender]["median"]
            print(f"  {contender:28} {rate['median']:8.0f} [{rate['min']:.0f}-{rate['max']:.0f}] msg/s  {cost:6.1f} us")
        print(f"  {'sending':28} {result['sent_per_second']}")
        print(f"  {'idle latency, ms':28} {result['idle_latency_ms']}")
    figures.write("channel", results)


if __name__ == "__main__":
    main()
