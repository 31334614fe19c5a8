"""Rollouts that go wrong after they began well, and the way back, with supervisord and a real worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.system.worlds import World

GOOD = 'from fleet import Tasks\n\ntasks = Tasks("shop")\n'
CRASHES_LATER = (
    GOOD
    + """
import os, threading

timer = threading.Timer(6.0, os._exit, [1])
timer.daemon = True
timer.start()
"""
)
CANNOT_BE_IMPORTED = GOOD + "import shop_that_is_not_installed\n"
HAS_NO_APP = "other = 1\n"


@pytest.fixture
def shop(world: World) -> World:
    """Two replicas that run what ``current`` leads to."""
    release(world, "one", GOOD)
    point(world, "one")
    write(world)
    world.apply()
    return world


def release(world: World, name: str, code: str) -> None:
    folder = world.root / "releases" / name
    folder.mkdir(parents=True)
    (folder / "shop_tasks.py").write_text(code)


def point(world: World, name: str) -> None:
    link = world.root / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(world.root / "releases" / name)


def write(world: World, env: str = "", *, min_ready_seconds: int = 1) -> None:
    world.manifest.write_text(
        f"""apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: world}}
spec:
  app: shop_tasks:tasks
  release: {{workdir: current}}
  broker: embedded
  groups:
    a:
      pool: solo
      replicas: 2
      queues: [a]
      env: {{{env}}}
      drain: {{timeout: 20s}}
      health: {{readyTimeout: 10m}}
      rollout: {{minReady: {min_ready_seconds}s, maxSurge: 0, maxUnavailable: 1, onFailure: rollback}}
"""
    )


def workdirs(world: World) -> set[str]:
    documents = (world.home / "world" / "run" / "specs").glob("a.*.json")
    return {Path(json.loads(path.read_text())["spec"]["workdir"]).name for path in documents}


def revisions(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(world.fleet("history", "--fleet", "world", "-o", "json").stdout)[
        "revisions"
    ]
    return found


def is_ready(world: World) -> bool:
    ready: bool = world.status()["ready"]
    return ready


def test_a_worker_that_crashes_after_it_was_ready_is_rolled_back(shop: World) -> None:
    write(shop, min_ready_seconds=10)
    release(shop, "two", CRASHES_LATER)
    point(shop, "two")
    untouched = shop.pids()["a.1"]
    said = shop.fleet("apply", str(shop.manifest), "-y", code=5)
    assert "after it was ready" in said.stderr
    assert "was rolled back to revision 1" in said.stderr
    assert workdirs(shop) == {"one"}, "the link still leads to two: a revision brings back what it led to"
    assert shop.pids()["a.1"] == untouched, "the second replica was never replaced"
    eventually(lambda: is_ready(shop))
    assert [one["outcome"] for one in revisions(shop)] == ["good", "failed", "good"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(CANNOT_BE_IMPORTED, "shop_that_is_not_installed"), (HAS_NO_APP, "no attribute 'tasks'")],
    ids=["import", "attribute"],
)
def test_broken_code_behind_the_link_fails_at_once_and_ten_times_is_once(shop: World, code: str, reason: str) -> None:
    release(shop, "two", code)
    point(shop, "two")
    said = shop.fleet("apply", str(shop.manifest), "-y", code=5)
    assert "replace a.0: cannot start (" in said.stderr
    assert reason in said.stderr
    assert workdirs(shop) == {"one"}
    eventually(lambda: is_ready(shop))

    before = shop.pids()
    for _ in range(10):
        again = shop.fleet("apply", str(shop.manifest), "-y", code=9)
        assert "exactly this failed before, as revision 2" in again.stderr
    assert shop.pids() == before
    assert len(revisions(shop)) == 3


def test_a_program_that_is_missing_fails_at_once(shop: World) -> None:
    text = shop.manifest.read_text()
    shop.manifest.write_text(text + "    b: {command: [no-such-program], replicas: 1, health: {readyTimeout: 10m}}\n")
    said = shop.fleet("apply", str(shop.manifest), "-y", code=6)
    assert "start b.0: cannot start (cannot run 'no-such-program': not found in PATH" in said.stderr


def test_what_was_mended_in_place_starts_with_the_next_apply(shop: World) -> None:
    shop.manifest.write_text(shop.manifest.read_text().replace("onFailure: rollback", "onFailure: pause"))
    release(shop, "two", CANNOT_BE_IMPORTED)
    point(shop, "two")
    shop.fleet("apply", str(shop.manifest), "-y", code=6)
    (shop.root / "releases" / "two" / "shop_tasks.py").write_text(GOOD)
    shop.fleet("apply", str(shop.manifest), "-y")
    assert workdirs(shop) == {"two"}
    assert [one["outcome"] for one in revisions(shop)] == ["good", "good"]


def test_rollback_runs_the_earlier_code_behind_a_link(shop: World) -> None:
    release(shop, "two", GOOD)
    point(shop, "two")
    shop.apply()
    assert workdirs(shop) == {"two"}
    shop.fleet("rollback", "--fleet", "world", "-y")
    assert workdirs(shop) == {"one"}


def test_brakes_work_without_secrets_and_code(shop: World) -> None:
    """Of a rollout that is paused, too: nothing is deployed by a restart, and what a spare needs is taken from what
    runs."""
    secret = shop.root / "token.txt"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    text = shop.manifest.read_text().replace("  groups:", "  secrets: {token: {file: token.txt}}\n  groups:")
    text = text.replace("env: {}", "secretEnv: {TOKEN: token}").replace("maxSurge: 0, maxUnavailable: 1", "maxSurge: 1")
    shop.manifest.write_text(text)
    shop.apply()
    secret.unlink()
    (shop.root / "current").unlink()
    shop.manifest.unlink()
    shop.fleet("drain", "a", "--fleet", "world")
    shop.fleet("resume", "a", "--fleet", "world")
    said = shop.fleet("restart", "a", "--fleet", "world", "-y")
    assert "spare while a rolls" in said.stdout
    assert workdirs(shop) == {"one"}
    shop.fleet("pause", "a", "--fleet", "world")
    shop.fleet("resume", "a", "--fleet", "world", "-y")
    assert workdirs(shop) == {"one"}, "the controller holds what it needs to heal"
    shop.fleet("down", "--fleet", "world", "-y")
