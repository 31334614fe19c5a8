"""One health check, as a command or a request: what passes, what fails, and that nothing can make it hang."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

import psutil
import pytest

from fleet.core.spec import FLEETS_ACCOUNT, AccountSpec, HealthCheckSpec, WorkerSpec
from fleet.replica.health_check import HealthChecker, why_unanswered
from fleet.replica.launch_document import LaunchDocument
from tests import accounts
from tests.accounts import needs_second_account
from tests.conftest import eventually

SHORT_SECONDS = 0.3
LONG_SECONDS = 60.0


def why(
    folder: Path,
    *command: str,
    seconds: float = LONG_SECONDS,
    env: tuple[tuple[str, str], ...] = (),
    account: AccountSpec = FLEETS_ACCOUNT,
) -> str:
    check = HealthCheckSpec(command, timeout_seconds=seconds)
    spec = WorkerSpec("command", "shop", "web", workdir=str(folder), health_check=check, env=env, account=account)
    document = LaunchDocument(folder / "run" / "specs" / "web.3.json", "shop", "web.3", "d", spec, secrets={})
    return HealthChecker().why_unhealthy(document, pid=4711)


def shell(folder: Path, line: str, **more: float) -> str:
    return why(folder, "sh", "-c", line, **more)


def test_a_command_is_run_as_the_replica_would_run_it(tmp_path: Path) -> None:
    line = f'test "$PWD" = {tmp_path} && test "$A $FLEET_REPLICA $FLEET_PID" = "b web.3 4711" && test ! -t 0'
    assert why(tmp_path, "sh", "-c", line, env=(("A", "b"),)) == ""


@needs_second_account
def test_a_command_runs_as_the_account_of_the_replica() -> None:
    account = AccountSpec(accounts.NAME, accounts.uid(), accounts.gid())
    line = f'test "$(id -u) $(id -g) $(id -G)" = "{account.uid} {account.gid} {account.gid}" && test "$USER" = nobody'
    assert why(Path("/"), "sh", "-c", line, account=account) == ""
    assert why(Path("/"), "cat", "/etc/shadow", account=account) == "exit code 1: cat: /etc/shadow: Permission denied"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("exit 3", "exit code 3"),
        ("echo one; echo two >&2; echo; exit 1", "exit code 1: two"),
        ("kill -9 $$", "ended by signal 9"),
        ("printf '\\033[31mred\\377\\n'; exit 1", "exit code 1: \\x1b[31mred�"),
    ],
)
def test_a_command_that_fails_is_quoted(line: str, reason: str, tmp_path: Path) -> None:
    assert shell(tmp_path, line) == reason


def test_what_is_said_of_it_has_a_length(tmp_path: Path) -> None:
    assert len(shell(tmp_path, "head -c 5000000 /dev/zero | tr '\\0' x; exit 1")) <= 200


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert why(tmp_path, "no-such-program") == "cannot run 'no-such-program': No such file or directory"


@pytest.mark.parametrize(
    "line",
    [
        "echo waits; exec sleep 1000",
        "trap '' TERM; echo waits; sleep 1000; sleep 1000",
        "yes waits",
        "echo waits; sleep 1000 | cat",
    ],
)
def test_one_that_does_not_end_is_killed_with_all_that_it_started(line: str, tmp_path: Path) -> None:
    mark = str(tmp_path)
    assert why(tmp_path, "sh", "-c", line, mark, seconds=SHORT_SECONDS, env=(("MARK", mark),)) == (
        f"no end within {SHORT_SECONDS} s: waits"
    )
    assert eventually(lambda: not marked(mark))


def test_what_it_leaves_running_is_killed_and_delays_nothing(tmp_path: Path) -> None:
    mark = str(tmp_path)
    assert why(tmp_path, "sh", "-c", "sleep 1000 & exit 0", mark, env=(("MARK", mark),)) == ""
    assert eventually(lambda: not marked(mark))


def marked(mark: str) -> list[int]:
    """Processes with this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@contextmanager
def server(*answers: bytes, stays: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Gives one answer piece by piece. Yields its port, and what it was asked."""
    asked: list[bytes] = []
    over: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            asked.append(connection.recv(4096))
            for answer in answers:
                connection.sendall(answer)
            over.append(connection)
            if not stays:
                connection.close()

        thread = Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], asked
        thread.join()
        for connection in over:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 204\r\n", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "status 503"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "status 100"),
        (b"SSH-2.0-x\r\n", "port {port} does not speak HTTP"),
        (b"HTTP/1.1 " + b"9" * 9000, "port {port} does not speak HTTP"),
        (b"", "it closed the connection"),
    ],
)
def test_the_status_of_an_answer_counts(answer: bytes, reason: str) -> None:
    with server(answer) as (port, asked):
        check = HealthCheckSpec(port=port, path="/ready?a=b", host="shop.org", timeout_seconds=LONG_SECONDS)
        assert why_unanswered(check) == reason.format(port=port)
    assert asked[0].split(b"\r\n")[:2] == [b"GET /ready?a=b HTTP/1.1", b"Host: shop.org"]


@pytest.mark.parametrize("answers", [(), (b"HTTP/1.1 2",)])
def test_a_server_that_says_nothing_or_half_of_it_is_not_waited_for(answers: tuple[bytes, ...]) -> None:
    with server(*answers, stays=True) as (port, _):
        check = HealthCheckSpec(port=port, timeout_seconds=SHORT_SECONDS)
        assert why_unanswered(check) == f"no answer within {SHORT_SECONDS} s"


def test_a_port_where_nobody_listens_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert why_unanswered(replace(HealthCheckSpec(), port=port)) == f"port {port}: Connection refused"


def test_the_python_that_runs_this_is_no_part_of_what_is_checked(tmp_path: Path) -> None:
    assert why(tmp_path, sys.executable, "-c", "import os, sys; sys.exit('PYTEST_CURRENT_TEST' in os.environ)") == ""
