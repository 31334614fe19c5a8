"""The two ways out, server and file, and what reads for them: on a fleet in memory and files of its own."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from fleet.core.text.listen import ListenAddress, listen_address
from fleet.errors import FleetError, UsageError
from fleet.operate.metrics.collecting import AuditCounts
from fleet.operate.metrics.samples import Sample
from fleet.operate.metrics.server import MetricsServer
from fleet.operate.metrics.textfile import textfile_of, write_textfile
from fleet.state.audit import LIMIT_BYTES, Audit

UP = [Sample("fleet_up", ("shop",), 1.0)]


class OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def asked(connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read()


def give() -> Sequence[Sample]:
    return UP


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_answers_on_the_loopback(host: str) -> None:
    with MetricsServer(ListenAddress(host), give) as server:
        connection = http.client.HTTPConnection(host, server.address.port)
        code, body = asked(connection, "/metrics")
        assert (code, b'fleet_up{fleet="shop"} 1.0' in body) == (200, True)
        assert asked(connection, "/metrics", "HEAD") == (200, b"")
        assert asked(connection, "/elsewhere")[0] == 404
        assert asked(connection, "/")[0] == 200
        assert asked(connection, "/metrics", Accept="application/openmetrics-text")[1].endswith(b"# EOF\n")
        connection.close()


def test_it_answers_on_a_socket_of_its_owner_alone_and_removes_it(short_tmp: Path) -> None:
    path = short_tmp / "m.sock"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    with MetricsServer(ListenAddress(path=str(path)), give):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connection = OverUnixSocket(str(path))
        assert asked(connection, "/metrics")[0] == 200
        connection.close()
        with pytest.raises(FleetError, match="cannot listen on unix:"):
            MetricsServer(ListenAddress(path=str(path)), give)
    assert not path.exists()


def test_a_file_in_the_place_of_the_socket_is_left_alone(short_tmp: Path) -> None:
    path = short_tmp / "m.sock"
    path.write_text("precious")
    with pytest.raises(FleetError, match="cannot listen on unix:"):
        MetricsServer(ListenAddress(path=str(path)), give)
    assert path.read_text() == "precious"


def test_a_port_that_is_taken_is_said() -> None:
    with (
        MetricsServer(ListenAddress("127.0.0.1"), give) as server,
        pytest.raises(FleetError, match=r"cannot listen on 127\.0\.0\.1:"),
    ):
        MetricsServer(server.address, give)


@pytest.mark.parametrize("text", ["127.0.0.1:9808", "[::1]:9808", "localhost:0", "unix:/run/m.sock"])
def test_addresses_of_this_machine_are_read_and_written_back(text: str) -> None:
    assert str(listen_address(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0.0.0.0:9808", "not an address of this machine alone"),
        ("[::]:9808", "not an address of this machine alone"),
        ("10.0.0.1:9808", "not an address of this machine alone"),
        ("shop.example:9808", "not an address of this machine alone"),
        ("9808", "not an address"),
        (":9808", "not an address"),
        ("127.0.0.1:65536", "not an address"),
        ("127.0.0.1:²", "not an address"),
        ("unix:run/m.sock", "not an absolute path"),
        ("", "not an address"),
    ],
)
def test_other_addresses_are_refused_with_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as error:
        listen_address(text)
    assert "; " in str(error.value)


def test_the_file_is_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = textfile_of(tmp_path, "shop")
    write_textfile(path, UP)
    assert path.name == "fleet-shop.prom"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert b"fleet_up" in path.read_bytes()
    assert os.listdir(tmp_path) == [path.name]
    assert textfile_of(tmp_path, "").name == "fleet.prom"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        textfile_of(tmp_path / "none", "")


def test_each_entry_of_the_audit_is_counted_once_over_moves_and_cuts(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.ndjson")
    counts = AuditCounts(audit)
    assert counts.read().events == {}
    audit.write({"event": "apply.ended", "outcome": "done"}, {"event": "heal.started", "class": "stuck"})
    assert counts.read().events == {"apply.ended": 1, "heal.started": 1}
    audit.write({"event": "apply.ended", "outcome": "failed"})
    with audit.path.open("ab") as file:
        file.write(b'{"event": "cut sho')
    assert counts.read().changes == {("apply", "done"): 1, ("apply", "failed"): 1}
    audit.write({"event": "balance.moved", "moves": {"thumbs": {"from": 1, "to": 2}}, "pad": "x" * 1000})
    assert counts.read().moves == {"thumbs": 1}
    audit.write(*[{"event": "big", "pad": "x" * (LIMIT_BYTES // 16)}] * 17)
    audit.write({"event": "after.move"})  # the file before it was over its limit, and is moved aside
    found = counts.read()
    assert (found.events["after.move"], found.events["apply.ended"]) == (1, 2)
    assert counts.read() == found == AuditCounts(audit).read()
