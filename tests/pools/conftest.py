"""Pools that are given up at the end of each test, whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pools import BasePool, EventLoop, PoolState, get_pool
from tests.conftest import PATIENCE

PATHS = {
    "own": "tests.pools.own:ExecutorPool",
    "celery": "tests.pools.own:CeleryStyle",
    "celery-threads": "celery.concurrency.thread:TaskPool",
    "celery-solo": "celery.concurrency.solo:TaskPool",
}
"""Pools of other people, under the names that the tests use for them."""


@pytest.fixture
def unhurried_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is told to end has all the time it wants."""
    monkeypatch.setattr("pools.inprocess.GRACE_SECONDS", PATIENCE)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    errors: list[Exception] = []
    loop = EventLoop(on_error=errors.append)
    yield loop
    loop.close()
    assert errors == []


@pytest.fixture
def make_pool(loop: EventLoop) -> Iterator[Callable[..., BasePool]]:
    """``make_pool("prefork", 2)``, or with ``+loop`` behind the name: registered with the loop of the test."""
    made: list[BasePool] = []

    def make(name: str, limit: int = 1, **options: Any) -> BasePool:
        kind, _, driven = name.partition("+")
        pool = get_pool(PATHS.get(kind, kind), limit, **options)
        made.append(pool)
        if driven:
            pool.register_with_event_loop(loop)
        pool.start()
        return pool

    yield make
    for pool in made:
        if pool.state is not PoolState.STOPPED:
            pool.terminate()
