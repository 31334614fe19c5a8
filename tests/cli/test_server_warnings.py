"""What is said of the embedded broker's server before it starts, and by the doctor."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import settings
from fleet.broker.server_version import server_at
from tests.cli.conftest import Desk

HOLE = "is Redis 6.2.14, which has known holes (CVE-"


def embedded(desk: Desk, version: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest runs its own broker, on a server that says this version."""
    server = desk.folder / f"redis-{version}"
    server.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64 build=0'\n")
    server.chmod(0o755)
    monkeypatch.setenv("FLEET_REDIS_SERVER", str(server))
    settings.load.cache_clear()
    server_at.cache_clear()
    desk.manifest.write_text(desk.manifest.read_text().replace('{url: "redis://localhost/0"}', "embedded"))
    return server


def test_apply_says_once_that_the_server_has_known_holes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    server = embedded(desk, "6.2.14", monkeypatch)
    said = desk.fleet("apply", "--yes")
    assert said.err.count(f"warning: {server} {HOLE}") == 1
    assert "install a newer Redis or Valkey" in said.err
    assert HOLE not in desk.fleet("apply", "--yes").err, "only where it starts"


def test_apply_says_nothing_of_a_sound_server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded(desk, "99.0.0", monkeypatch)
    assert "known holes" not in desk.fleet("apply", "--yes").err


def test_a_server_that_is_too_old_is_refused_before_anything_starts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded(desk, "5.0.14", monkeypatch)
    said = desk.fleet("apply", "--yes", code=9)
    assert "is Redis 5.0.14; fleet needs 6.2.0 or newer" in said.err
    assert desk.pids() == {}
    assert not desk.state.parent.exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_doctor_says_it_louder_where_the_fleet_needs_the_server(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    plain = desk.manifest.read_text()
    server = embedded(desk, "6.2.14", monkeypatch)
    if not wanted:
        desk.manifest.write_text(plain)
    document = desk.fleet("doctor", "-o", "json", code=None).json
    [found] = [one for one in document["findings"] if HOLE in one["message"]]
    assert found["message"].startswith(str(server))
    assert found["severity"] == ("warning" if wanted else "info")
    assert "FLEET_REDIS_SERVER" in found["hint"]
