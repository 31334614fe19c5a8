"""Nothing that was sent is lost: holders killed at random, servers killed and restarted under load."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis

from fleet.broker.channels.base import ChannelLost
from fleet.broker.channels.redis.channel import RedisChannel
from fleet.broker.publisher import Outgoing, Publisher, depths
from fleet.core.spec import QueueSpec
from tests.brokers import Broker, values
from tests.conftest import eventually
from tests.servers import free_port, redis_binary
from tests.worker.holder import holder

pytestmark = pytest.mark.system

LEASE = 4.0


class Server:
    """A Redis that keeps everything on disk, on a port and a socket, and can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis+socket://:s3cret@{folder}/broker.sock?virtual_host=0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                redis_binary(),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", f"{self.folder}/broker.sock"),
                *("--requirepass", "s3cret", "--appendonly", "yes", "--appendfsync", "always", "--save", ""),
                *("--dir", str(self.folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        eventually(self._answers)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis(port=self.port, password="s3cret") as client:
            return bool(client.ping())
        return False


@pytest.fixture
def server(short_tmp: Path) -> Iterator[Server]:
    server = Server(short_tmp)
    server.start()
    yield server
    server.kill()


def journal_of(path: Path) -> Counter[int]:
    """How often each message was run. The last line may have been cut by a kill."""
    text = path.read_text() if path.exists() else ""
    return Counter(int(line) for line in text.split("\n")[:-1] if line.isdigit())


def test_holders_killed_at_random_lose_nothing(redis_url: str, tmp_path: Path) -> None:
    """Twelve kills of three replicas in full flight, each replaced; every message is run at least once."""
    total, kills = 12_000, 12
    broker = Broker("redis", redis_url)
    broker.options = {"global_keyprefix": f"{broker.queue}/"}
    journal = tmp_path / "journal"
    rng = random.Random(7)
    options = {
        "fleet": broker.queue,
        "lease": LEASE,
        "prefix": broker.options["global_keyprefix"],
        "journal": journal,
    }

    def send() -> None:
        with Publisher(broker.url, options=broker.options) as publisher:
            for start in range(0, total, 20):
                publisher.send_many(Outgoing(broker.queue, str(n)) for n in range(start, start + 20))
                time.sleep(rng.random() * 0.01)

    with ExitStack() as stack:

        def start(replica: str) -> object:
            one = stack.enter_context(holder(broker.url, broker.queue, replica=replica, **options))  # type: ignore[arg-type]
            assert one.process.stdin is not None
            one.process.stdin.write("loop\n")
            one.process.stdin.flush()
            return one

        names = ["g.0", "g.1", "g.2"]
        running = {name: start(name) for name in names}
        producer = threading.Thread(target=send)
        producer.start()
        for _ in range(kills):
            before = sum(journal_of(journal).values())
            eventually(lambda before=before: sum(journal_of(journal).values()) > before or not producer.is_alive())
            time.sleep(rng.random() * 0.05)
            name = rng.choice(names)
            running[name].kill()  # type: ignore[attr-defined]
            # Some come back under their name, others never: those are relieved by their lease.
            names[names.index(name)] = again = name if rng.random() < 0.5 else f"g.{rng.randrange(3, 10**6)}"
            running[again] = start(again)
        producer.join()
        runs = eventually(lambda: (runs := journal_of(journal)) and len(runs) == total and runs)
    extra = sum(runs.values()) - total
    assert set(runs) == set(range(total))
    # At most what three slots held, and what was acknowledged but not yet told, at each kill.
    assert extra <= kills * 6


def test_killed_rabbitmq_consumers_lose_nothing(rabbitmq_url: str, tmp_path: Path) -> None:
    broker = Broker("rabbitmq", rabbitmq_url)
    journal = tmp_path / "journal"
    total = 6000
    broker.send(*range(total))
    for _ in range(4):
        with holder(broker.url, broker.queue, fleet="f", replica="g.0", journal=journal) as one:
            before = len(journal_of(journal))
            assert one.process.stdin is not None
            one.process.stdin.write("loop\n")
            one.process.stdin.flush()
            eventually(lambda before=before: len(journal_of(journal)) > before + 200)
            one.kill()
    with holder(broker.url, broker.queue, fleet="f", replica="g.0", journal=journal) as one:
        assert one.process.stdin is not None
        one.process.stdin.write("loop\n")
        one.process.stdin.flush()
        eventually(lambda: len(journal_of(journal)) == total)


def test_server_killed_and_restarted_under_load_runs_everything_and_nothing_twice(server: Server) -> None:
    """The replicas live on, so what they held stays theirs: no task is run again because the server was away."""
    total = 3000
    with Publisher(server.url) as publisher:
        publisher.send_many(Outgoing("q", str(n)) for n in range(total))
    channels = [
        RedisChannel(server.url, queues=[QueueSpec("q")], replica=f"g.{n}", fleet="f", lease_seconds=LEASE)
        for n in range(3)
    ]
    runs: Counter[int] = Counter()
    done = threading.Event()

    def work(channel: RedisChannel) -> None:
        opened = False
        while not done.is_set():
            try:
                if not opened:
                    channel.open()
                    opened = True
                taken = channel.fetch(4)
                runs.update(values(taken))
                channel.ack(taken)
                channel.tend()
                time.sleep(0.002)
            except ChannelLost:
                opened = False
                time.sleep(0.05)
        channel.close()

    threads = [threading.Thread(target=work, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = len(runs)
        eventually(lambda before=before: len(runs) > before + 100)
        server.kill()
        server.start()
    eventually(lambda: len(runs) == total and depths(server.url, ["q"])["q"] == 0)
    done.set()
    for thread in threads:
        thread.join()
    assert set(runs.values()) == {1}
    with redis.Redis(port=server.port, password="s3cret") as client:
        assert not client.keys("fleet:held:*")
        assert not client.keys("fleet:inbox:*")
        assert client.llen("q") == 0


def test_waiting_replicas_survive_a_restart_of_the_server(server: Server) -> None:
    channel = RedisChannel(server.url, queues=[QueueSpec("q")], replica="g.0", fleet="f")
    channel.open()
    assert not channel.fetch(1)
    server.kill()
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    with pytest.raises(ChannelLost):
        channel.open()
    server.start()
    channel.open()
    with Publisher(server.url) as publisher:
        publisher.send(Outgoing("q", "5"))
    assert eventually(lambda: values(channel.fetch(1))) == [5]
    channel.close()
