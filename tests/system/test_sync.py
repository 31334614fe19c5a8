"""`fleet sync run` with real processes: pushes are followed, refusals change nothing, a kill costs nothing."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.operate.sync.worlds import SOURCE, Upstream, manifest
from tests.system.worlds import World, make

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
PATIENCE = 100.0


class Synced:
    """A world whose fleet ``shop`` follows a repository."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.upstream = Upstream(world.root / "up").make()
        self.source = world.root / "source.yaml"
        self.runs: list[subprocess.Popen[bytes]] = []
        self.describe()

    def describe(self, more: str = "  interval: 300ms\n  retry: {initial: 300ms, max: 1s}\n") -> None:
        text = SOURCE.format(url=self.upstream.bare, ref="branch: main", paths="fleet.yaml", git="", more=more)
        self.source.write_text(text)

    def run(self) -> subprocess.Popen[bytes]:
        process = self.world.popen("sync", "run", str(self.source))
        self.runs.append(process)
        return process

    def status(self) -> dict[str, Any]:
        said = self.world.fleet("sync", "status", str(self.source), "-o", "json").stdout
        document: dict[str, Any] = json.loads(said)
        return document

    def is_at(self, commit: str) -> bool:
        return bool(self.status()["lastAppliedRevision"] == commit)

    def pids(self) -> dict[str, int]:
        document = json.loads(self.world.fleet("status", "--fleet", "shop", "-o", "json").stdout)
        workers = [one for group in document["groups"].values() for one in group["workers"]]
        return {one["name"]: one["pid"] for one in workers if one["state"] == "ready"}

    def close(self) -> None:
        for process in self.runs:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.world.fleet("down", "--fleet", "shop", "--yes", "--adopt", code=None)
        for process in self.world.processes():
            process.send_signal(signal.SIGKILL)


@pytest.fixture
def synced(short_tmp: Path) -> Iterator[Synced]:
    made = Synced(make(short_tmp))
    yield made
    made.close()


def test_pushes_are_followed_and_bad_ones_change_nothing(synced: Synced) -> None:
    upstream = synced.upstream
    first = upstream.publish(manifest(2))
    process = synced.run()
    eventually(lambda: synced.is_at(first), within=PATIENCE)
    before = synced.pids()
    assert sorted(before) == ["clock.0", "clock.1"]

    second = upstream.publish(manifest(4))
    eventually(lambda: synced.is_at(second), within=PATIENCE)
    assert before.items() <= synced.pids().items()
    assert len(synced.pids()) == 4

    bad = upstream.publish(manifest(9).replace("replicas", "replicsa"))
    eventually(lambda: synced.status()["problems"], within=PATIENCE)
    status = synced.status()
    valid = next(row for row in status["conditions"] if row["type"] == "Valid")
    assert f"commit {bad[:12]}: fleet.yaml:7:" in valid["message"]
    assert status["lastAppliedRevision"] == second
    subprocess.run(["kill", "-9", str(synced.pids()["clock.3"])], check=True)
    eventually(lambda: len(synced.pids()) == 4, within=PATIENCE)

    upstream.git("reset", "-q", "--hard", first)
    upstream.write("fleet.yaml", manifest(1))
    upstream.commit("rewritten")
    upstream.push("--force")
    eventually(lambda: synced.status()["conditions"][1]["reason"] == "HistoryRewritten", within=PATIENCE)
    assert len(synced.pids()) == 4

    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert len(synced.pids()) == 4, "the fleet lives on without its source"


def test_a_kill_at_any_moment_costs_nothing(synced: Synced) -> None:
    chance = random.Random(7)
    upstream = synced.upstream
    commit = upstream.publish(manifest(1))
    for replicas in (2, 3, 4, 5, 6):
        commit = upstream.publish(manifest(replicas))
        process = synced.run()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.2, 3.0))
        process.kill()
        process.wait()
    synced.run()
    eventually(lambda: synced.is_at(commit), within=PATIENCE)
    assert len(synced.pids()) == 6
    left = [path.name for path in (synced.world.home / ".sources" / "shop-prod" / "checkouts").glob(".*")]
    assert left == []


def test_only_one_process_follows_a_source(synced: Synced) -> None:
    commit = synced.upstream.publish(manifest(1))
    synced.run()
    eventually(lambda: synced.is_at(commit), within=PATIENCE)
    second = synced.world.fleet("sync", "run", str(synced.source), code=8)
    assert "is followed by" in second.stderr


@pytest.mark.parametrize("how", ["webhook", "now"])
def test_it_looks_at_once_when_it_is_asked(synced: Synced, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (synced.world.root / "hook").write_text("s3cret\n")
    (synced.world.root / "hook").chmod(0o600)
    receiver = f"  receiver: {{hmacSecret: {{secret: hook}}, listen: '127.0.0.1:{port}'}}\n"
    synced.describe(f"  interval: 1h\n  secrets: {{hook: {{file: hook}}}}\n{receiver}")
    first = synced.upstream.publish(manifest(1))
    synced.run()
    eventually(lambda: synced.is_at(first), within=PATIENCE)
    second = synced.upstream.publish(manifest(2))
    if how == "now":
        synced.world.fleet("sync", "now", "shop-prod")
    else:
        body = b'{"after": "nonsense"}'
        mark = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/", body, {"X-Hub-Signature-256": f"sha256={mark}"})
        assert connection.getresponse().status == 202
        connection.close()
    eventually(lambda: synced.is_at(second), within=PATIENCE)
