"""Fixtures that build worlds: servers, folders, patience."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import RabbitServer, RedisServer

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds to wait for what must come, on a machine that is far too busy. Only what never comes takes so long."""

# A test never fails for being slow, on whatever machine it runs, and finds the same today as yesterday. To look for new
# examples: EXPLORE=1 make test PYTEST_ARGS="tests/properties tests/core".
settings.register_profile(
    "fleet",
    deadline=None,
    max_examples=100 if "EXPLORE" in os.environ else 50,  # the same ones each time: more of them is for exploring
    derandomize="EXPLORE" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("fleet")

# A shell starts what it puts into the background with INT ignored, which every command under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FIRST = (
    *("test_every_pool.py", "test_rollout.py", "test_worker_contract.py", "test_main_job.py", "test_cli_real.py"),
    *("test_balance.py", "test_examples.py", "test_resize.py", "test_healing.py", "test_worker_green.py"),
    *("test_celery_member.py", "test_tutorials.py", "test_worker_init.py", "test_worker_lost_work.py"),
    *("test_full_disk.py", "test_remote_control.py", "test_releases.py", "test_worker_connection.py", "test_run.py"),
    *("test_dashboard.py", "test_shop.py", "test_image.py", "test_tracing.py", "test_sync.py"),
)
"""Files that run for minutes, by how long. Processes take whole files: a long one begun last would run on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick files first, then those with real servers, the longest of them before the others."""
    places = {name: number for number, name in enumerate(LONGEST_FIRST)}

    def place(item: pytest.Item) -> int:
        name = item.path.name
        slow = name in places or item.path.parent.name == "system"
        return 1 + places.get(name, len(places)) if slow else 0

    items.sort(key=place)


def eventually(check: Callable[[], T], *, within: float = PATIENCE, every: float = 0.05) -> T:
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


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis for the session. Tests share it: use queue and key names of your own."""
    server = RedisServer().start()
    yield server.url
    server.remove()


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A real RabbitMQ for the session."""
    server = RabbitServer().start()
    yield server.url
    server.remove()
