"""A fleet in memory, and its pages in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from fleet import settings
from fleet.operate.dashboard.access import Policy, Token
from fleet.operate.dashboard.app import Dashboard
from tests.cli.conftest import Desk, desk

__all__ = ["desk"]

HOSTS = frozenset({"testserver", "localhost"})
TOKEN = "a-token-that-is-long-enough"
OPEN = Policy(HOSTS, nobody="ann")
ACTING = Policy(HOSTS, nobody="ann", may_act=True)
WITH_TOKEN = Policy(HOSTS, tokens=(Token.of("bob", TOKEN),), may_act=True)

Serve = Callable[..., TestClient]


@pytest.fixture
def serve(desk: Desk) -> Iterator[Serve]:
    """Makes a browser for the pages of the fleet that was applied."""
    desk.fleet("apply", str(desk.manifest), "--yes")
    with ExitStack() as stack:

        def made(policy: Policy = OPEN, **options) -> TestClient:
            dashboard = Dashboard(settings.load(), policy, watch_queues=False, **options)
            return stack.enter_context(TestClient(dashboard.app, follow_redirects=False))

        yield made


def mark_of(text: str) -> str:
    """What the page sends back with what it asks to be done."""
    return text.split('data-mark="')[1].split('"')[0]
