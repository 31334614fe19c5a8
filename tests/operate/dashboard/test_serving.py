"""The verb and its server: where it listens, whom it refuses, and a stream over a real connection."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fleet import settings
from fleet.core.text.listen import ListenAddress, listen_address
from fleet.errors import FleetError
from fleet.operate.dashboard.access import Policy
from fleet.operate.dashboard.app import Dashboard
from fleet.operate.dashboard.serving import DashboardServer
from tests.cli.conftest import Desk
from tests.operate.dashboard.conftest import OPEN

POLICY = Policy(OPEN.hosts | {"127.0.0.1"}, nobody="ann")
LOOPBACK = listen_address("127.0.0.1:0")


@pytest.fixture
def dashboard(desk: Desk) -> Dashboard:
    desk.fleet("apply", str(desk.manifest), "--yes")
    return Dashboard(settings.load(), POLICY, watch_queues=False, look_seconds=0.05)


def first_events(connection: http.client.HTTPConnection, path: str, count: int) -> list[dict]:
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    found: list[dict] = []
    while len(found) < count:
        line = answer.readline()
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    return found


def test_a_stream_begins_with_the_whole_and_goes_on(dashboard: Dashboard) -> None:
    with DashboardServer(dashboard, LOOPBACK) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.address.port)
        whole, *rest = first_events(connection, "/api/stream?fleet=shop", 3)
        connection.close()
    assert whole["whole"]
    assert "thumbs.0" in whole["replicas"]
    assert all("whole" not in one for one in rest)


def test_lines_of_logs_come_as_they_are_written(dashboard: Dashboard, desk: Desk) -> None:
    log = desk.folder / "home" / "shop" / "log" / "thumbs.0.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("before\n")
    with DashboardServer(dashboard, LOOPBACK) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.address.port)
        connection.request("GET", "/api/fleets/shop/logs/stream?name=thumbs")
        answer = connection.getresponse()
        found = []
        while len(found) < 2:
            if not (line := answer.readline()).startswith(b"data: "):
                continue
            found.append(json.loads(line[6:]))
            if len(found) == 1:
                with log.open("a") as file:
                    file.write("redis://u:secret-word@h/0 after\n")
        connection.close()
    assert [(one["whole"], [line["text"] for line in one["lines"]]) for one in found] == [
        (True, ["before"]),
        (False, ["redis://u:**@h/0 after"]),
    ]


def test_pages_that_follow_do_not_hold_up_the_end(dashboard: Dashboard) -> None:
    with DashboardServer(dashboard, LOOPBACK) as server:
        connections = [http.client.HTTPConnection("127.0.0.1", server.address.port) for _ in range(3)]
        for connection in connections:
            first_events(connection, "/api/stream?fleet=shop", 1)
    for connection in connections:
        connection.close()


def test_a_unix_socket_is_for_this_account(dashboard: Dashboard, short_tmp: Path) -> None:
    path = short_tmp / "d.sock"
    with DashboardServer(dashboard, ListenAddress(path=str(path))) as server:
        assert str(server.address) == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        with pytest.raises(FleetError, match="cannot listen"):
            DashboardServer(dashboard, ListenAddress(path=str(path)))
    assert not path.exists()


def test_a_taken_port_and_an_unknown_group_are_said(dashboard: Dashboard, short_tmp: Path) -> None:
    with DashboardServer(dashboard, LOOPBACK) as server, pytest.raises(FleetError, match="cannot listen"):
        DashboardServer(dashboard, server.address)
    with pytest.raises(FleetError, match="no group"):
        DashboardServer(dashboard, ListenAddress(path=str(short_tmp / "s")), socket_group="no-such-group")


# --- the verb


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--listen", "0.0.0.0:9810"], 9, "nobody would be asked"),
        (["--listen", "10.0.0.5:9810", "--allow-actions"], 9, "nobody would be asked"),
        (["--listen", "10.0.0.5:9810", "--token-file", "t"], 9, "in plain text"),
        (["--listen", "10.0.0.5:9810", "--trust-header", "X-User"], 64, "without --proxy"),
        (["--listen", "127.0.0.1:9810", "--trust-header", "X-User"], 64, "without --proxy"),
        (["--listen", "0.0.0.0:1", "--trust-header", "X-User", "--proxy", "10.0.0.7"], 64, "needs --host-name"),
        (["--listen", "fleet.example.com:9810"], 64, "not an address"),
        (["--proxy", "10.0.0.7"], 64, "needs --trust-header"),
        (["--proxy", "nginx", "--trust-header", "X-User"], 64, "not an address"),
        (["--listen", "unix:/s", "--proxy", "::1", "--trust-header", "X-User"], 64, "nobody has an address there"),
        (["--trust-header", "X-User", "--token-file", "t"], 64, "at once"),
        (["--tls-cert", "c"], 64, "belong together"),
        (["--socket-group", "www-data"], 64, "needs --listen unix"),
        (["--token-file", "no-such-file"], 1, "cannot read no-such-file"),
        (["--fleet", "other"], 64, "no fleet 'other'"),
    ],
)
def test_flags_that_would_let_in_anybody_are_refused(desk: Desk, words: list[str], code: int, said: str) -> None:
    desk.fleet("apply", str(desk.manifest), "--yes")
    assert said in desk.fleet("dashboard", *words, code=code).err


def test_without_the_libraries_it_names_the_extra(tmp_path: Path) -> None:
    script = (
        "import sys, importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'uvicorn' else found(name, *more)\n"
        "from fleet.cli import main\n"
        "sys.exit(main(['dashboard']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "FLEET_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "workerfleet[dashboard]" in done.stderr


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_the_verb_serves_until_it_is_told_to_end(tmp_path: Path, name: str) -> None:
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "fleet", "dashboard", "--listen", "127.0.0.1:0", "--allow-actions"],
        env={**os.environ, "FLEET_HOME": str(tmp_path)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line, note = process.stderr.readline(), process.stderr.readline()
    port, _, token = line.split("127.0.0.1:")[1].strip().partition("/login#")
    assert token not in ("", note)
    connection = http.client.HTTPConnection("127.0.0.1", int(port))
    connection.request("GET", "/")
    assert connection.getresponse().status == 303
    connection.close()
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait() == 0
    process.stderr.close()


def test_https_with_a_certificate(dashboard: Dashboard, tmp_path: Path) -> None:
    from fleet.operate.dashboard.serving import Tls

    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run([*made, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificate, is not installed")
    with pytest.raises(FleetError, match="certificate"):
        DashboardServer(dashboard, LOOPBACK, tls=Tls(key, cert))
    with DashboardServer(dashboard, LOOPBACK, tls=Tls(cert, key)) as server:
        context = ssl.create_default_context(cafile=str(cert))
        connection = http.client.HTTPSConnection("localhost", server.address.port, context=context)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
