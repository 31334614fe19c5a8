"""Brokers of a measurement's own: a Redis and a RabbitMQ on the loopback, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis() -> Iterator[str]:
    """A Redis without persistence; yields its URL."""
    port = free_port()
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise SystemExit("bench: no redis-server; run `make servers`")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir()) as process:
        try:
            _wait(port, b"PING\r\n", b"PONG", within=10)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@contextmanager
def rabbitmq() -> Iterator[str]:
    """A RabbitMQ node with a folder, ports and an epmd of its own; yields its URL."""
    if not RABBITMQ.exists():
        raise SystemExit("bench: no rabbitmq-server; run `make servers`")
    port, dist, epmd = free_port(), free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="fleet-bench-rabbit-"))
    (folder / "plugins").write_text("[].\n")
    env = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none",
    }
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([str(RABBITMQ)], env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            _wait(port, b"AMQP\x00\x00\x09\x01", b"", within=60)
            yield f"amqp://guest:guest@127.0.0.1:{port}//"
        finally:
            _end_session(process)
            subprocess.run(["epmd", "-port", str(epmd), "-kill"], env=env, capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, say: bytes, hear: bytes, *, within: float) -> None:
    """Until the server answers with something that holds ``hear``."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
                link.settimeout(2)
                link.sendall(say)
                heard = link.recv(100)
            if heard and hear in heard:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"bench: the server on port {port} does not answer")


def _end_session(process: subprocess.Popen[bytes]) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            process.wait(20)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
