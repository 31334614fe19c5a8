"""Both loops side by side: neither holds the other up, and neither ends for an error."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.operate.sync.opening import service
from fleet.operate.sync.reconcile import LocalTarget
from fleet.operate.sync.state import read_fetched, read_reconciled
from tests.conftest import eventually
from tests.operate.sync.worlds import Place, Upstream, manifest

QUICK = "  interval: 100ms\n  retry: {initial: 100ms, max: 200ms}\n"
PATIENCE = 60.0


@contextmanager
def followed(place: Place, **fields: str) -> Iterator[list[str]]:
    """The source is followed meanwhile; the lines of its log."""
    fields = {"more": QUICK, **fields}
    lines: list[str] = []
    definition = place.following(**fields).definition
    target = LocalTarget(open_fleet=place.local)
    loops = service(definition, place.places, say=lines.append, target=target)
    thread = threading.Thread(target=lambda: loops.run(interrupted=lambda: 0))
    thread.start()
    try:
        yield lines
    finally:
        loops.stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def put_a_folder_there(path: Path) -> bool:
    """A file that no look can read or replace, whatever it is about to write."""
    path.unlink(missing_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def is_at(place: Place, commit: str) -> bool:
    return read_reconciled(place.places).applied == commit


def test_pushes_are_followed_and_the_log_tells_each_change_once(place: Place, upstream: Upstream) -> None:
    first = upstream.publish(manifest(1))
    with followed(place) as lines:
        eventually(lambda: is_at(place, first), within=PATIENCE)
        second = upstream.publish(manifest(2))
        eventually(lambda: is_at(place, second), within=PATIENCE)
        eventually(lambda: any(line.startswith(f"Ready True (Ready) {second[:12]}") for line in lines), within=PATIENCE)
    fetched = [line for line in lines if line.startswith("Fetched")]
    assert [line.split()[2].rstrip(":") for line in fetched] == [first[:12], second[:12]]


def test_an_error_that_nobody_expected_ends_no_loop(place: Place, upstream: Upstream) -> None:
    first = upstream.publish(manifest(1))
    with followed(place) as lines:
        eventually(lambda: is_at(place, first), within=PATIENCE)
        eventually(lambda: put_a_folder_there(place.places.fetched))
        eventually(lambda: any("fetched.json cannot be read" in line for line in lines), within=PATIENCE)
        place.places.fetched.rmdir()
        second = upstream.publish(manifest(2))
        eventually(lambda: is_at(place, second), within=PATIENCE)


def test_a_repository_that_does_not_answer_does_not_stop_the_healing(
    place: Place, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = upstream.publish(manifest(2))
    place.look()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep 1000\n")
    (tmp_path / "bin" / "ssh").chmod(0o755)
    (tmp_path / "hosts").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    auth = "    auth: {knownHosts: {file: hosts}}\n"
    with followed(place, url="git@host.example.com:x.git", git=auth):
        eventually((tmp_path / "asked").exists, within=PATIENCE)
        place.world.stop(["clock.1"])
        place.world.forget(["clock.1"])
        eventually(lambda: place.running() == ["clock.0", "clock.1"], within=PATIENCE)
    assert read_reconciled(place.places).applied == commit
    assert read_fetched(place.places).good == commit
