"""The XML-RPC door: what it says when the other side is not there, hangs, leaves or speaks nonsense."""

from __future__ import annotations

import json
import socket
import threading
import xmlrpc.client
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from supervisor.rpcinterface import SupervisorNamespaceRPCInterface
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.xmlrpc import RPCError

from fleet.backends.supervisor.image_plugin import FleetInterface, Fork
from fleet.backends.supervisor.rpc import (
    DaemonDown,
    DaemonLeaves,
    Fault,
    Process,
    ProcessState,
    Refusal,
    SupervisorRpc,
)
from fleet.errors import FleetError, Unreachable
from tests.backends.worlds import World, desired_of, replicas_of, spec_of
from tests.limits import struck_inside


@contextmanager
def speaking(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """A server that gives one answer to each connection, whatever it is asked."""
    asked: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        for answer in answers:
            try:
                link, _ = server.accept()
            except OSError:  # closed: nobody asked as often as answers were prepared
                return
            with link:
                asked.append(whole_request(link))
                if answer:
                    link.sendall(answer)
                else:
                    link.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept; close alone does not
        server.close()
        thread.join()


def whole_request(link: socket.socket) -> bytes:
    data = b""
    while b"</methodCall>" not in data:
        data += link.recv(65536)
    return data


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status.encode(), len(body), body)


def fault(code: int) -> bytes:
    struct = f"<struct><member><name>faultCode</name><value><int>{code}</int></value></member>"
    struct += "<member><name>faultString</name><value><string>SAID</string></value></member></struct>"
    return http(f"<methodResponse><fault><value>{struct}</value></fault></methodResponse>".encode())


OK = http(b"<methodResponse><params><param><value><int>7</int></value></param></params></methodResponse>")


def test_nobody_there_is_a_daemon_that_is_down(short_tmp: Path) -> None:
    rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)

    with pytest.raises(DaemonDown) as caught:
        rpc.pid()

    assert caught.value.exit_code == 10
    assert "fleet apply" in caught.value.hint


def test_a_stale_socket_is_a_daemon_that_is_down(short_tmp: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(short_tmp / "s.sock"))

    with pytest.raises(DaemonDown):
        SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60).pid()


def test_a_daemon_that_hangs_is_given_up_after_the_timeout(short_tmp: Path) -> None:
    with speaking(short_tmp / "s.sock", b""):
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=0.1)
        with pytest.raises(Unreachable, match=r"did not answer within 0.1 s") as caught:
            rpc.pid()
        assert not isinstance(caught.value, DaemonDown), "it runs: nobody may start a second one"


def test_after_a_failed_call_the_next_one_gets_a_new_connection(short_tmp: Path) -> None:
    def second_answer(seconds: float) -> int | None:
        path = short_tmp / f"{seconds}.sock"
        with speaking(path, b"", OK), closing(SupervisorRpc(path, timeout_seconds=seconds)) as rpc:
            with pytest.raises(Unreachable):
                rpc.pid()
            try:
                return rpc.pid()
            except Unreachable:  # not in time
                return None

    assert struck_inside(second_answer) == 7


def test_a_connection_the_daemon_closed_is_made_anew_without_a_word(short_tmp: Path) -> None:
    with speaking(short_tmp / "s.sock", OK, OK):
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        assert [rpc.pid(), rpc.pid()] == [7, 7]
        rpc.close()


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", http(b"<nonsense"), http(b"", "500 Internal")])
def test_nonsense_is_an_error_of_ours(short_tmp: Path, answer: bytes) -> None:
    with speaking(short_tmp / "s.sock", answer, answer):
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        with pytest.raises(FleetError) as caught:
            rpc.pid()
        assert caught.value.hint


def test_faults_become_errors_with_hints(short_tmp: Path) -> None:
    with speaking(short_tmp / "s.sock", fault(Fault.CANT_REREAD), fault(Fault.SHUTDOWN_STATE)):
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        with pytest.raises(Refusal, match="SAID") as refused:
            rpc.reload()
        assert "a file in conf.d is broken" in refused.value.hint
        rpc.close()
        with pytest.raises(Unreachable, match="is shutting down"):
            rpc.pid()
        rpc.close()


def answer(value: Any) -> bytes:
    return http(xmlrpc.client.dumps((value,), methodresponse=True).encode())


KEYS = ("group", "name", "state", "pid", "start", "exitstatus", "spawnerr")
ROW = dict(zip(KEYS, ("a.0", "a.0@9f31c2ab", 20, 7, 5, 3, "<&\ud800>"), strict=True))
FACTS = ("a.0", "a.0@9f31c2ab", ProcessState.RUNNING, 7, 5, 3)


def test_a_list_that_is_known_is_not_sent_again(short_tmp: Path) -> None:
    rows = [list(ROW.values()), [*list(ROW.values())[:2], 12345, *list(ROW.values())[3:]]]
    said = [answer(json.dumps([mark, one])) for mark, one in [("m1", rows), ("m1", None), ("m2", rows[:1])]]
    with speaking(short_tmp / "s.sock", *said) as asked:
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        first, again, then = rpc.processes(), rpc.processes(), rpc.processes()
        rpc.close()

    assert first[0] == Process(*FACTS, "<&\ud800>")
    assert first[1].state is ProcessState.UNKNOWN
    assert again is first
    assert then == first[:1]
    assert [mark for one in asked for mark in (b"m1", b"m2") if mark in one] == [b"m1", b"m1"]
    assert all(b"fleet.listChangedProcesses" in one for one in asked)


def test_an_answer_without_a_list_for_a_mark_that_nobody_gave_is_refused(short_tmp: Path) -> None:
    with speaking(short_tmp / "s.sock", answer(json.dumps(["m1", None]))):
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        with pytest.raises(FleetError, match="makes no sense"):
            rpc.processes()
        rpc.close()


def test_a_daemon_of_an_earlier_version_is_asked_for_the_whole_list(short_tmp: Path) -> None:
    rows = answer(json.dumps([list(ROW.values())]))
    with speaking(short_tmp / "s.sock", fault(Fault.UNKNOWN_METHOD), OK, rows, OK, rows) as asked:
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        assert [rpc.processes(), rpc.processes()] == [(Process(*FACTS, "<&\ud800>"),)] * 2
        rpc.close()

    assert sum(b"fleet.listChangedProcesses" in one for one in asked) == 1
    assert b"fleet.listProcesses" in asked[-1]


def test_a_daemon_of_a_still_earlier_version_is_asked_in_the_long_form_from_then_on(short_tmp: Path) -> None:
    rows, unknown = answer([{**ROW, "spawnerr": "gone"}]), fault(Fault.UNKNOWN_METHOD)
    with speaking(short_tmp / "s.sock", unknown, OK, unknown, rows, OK, rows) as asked:
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        assert [rpc.processes(), rpc.processes()] == [(Process(*FACTS, "gone"),)] * 2
        rpc.close()

    assert sum(b"fleet.list" in one for one in asked) == 2


@pytest.mark.parametrize("before", [(), (fault(Fault.UNKNOWN_METHOD), OK)], ids=["this version", "an earlier one"])
def test_one_that_shuts_down_says_so_in_the_short_form_too(short_tmp: Path, before: tuple[bytes, ...]) -> None:
    with speaking(short_tmp / "s.sock", *before, fault(Fault.SHUTDOWN_STATE)):
        rpc = SupervisorRpc(short_tmp / "s.sock", timeout_seconds=60)
        with pytest.raises(DaemonLeaves):
            rpc.processes()
        rpc.close()


def daemon(*, mood: SupervisorStates = SupervisorStates.RUNNING) -> SimpleNamespace:
    """As much of supervisord as its own process list looks at."""
    groups = {}
    for name, facts in {
        "b.0": {"pid": 7, "laststart": 5.7, "exitstatus": None, "spawnerr": None, "state": ProcessStates.RUNNING},
        "a.1": {"pid": 0, "laststart": 0, "exitstatus": 78, "spawnerr": "no <such>", "state": ProcessStates.EXITED},
    }.items():
        config = SimpleNamespace(name=f"{name}@9f31c2ab", stdout_logfile=None, stderr_logfile=None)
        process = SimpleNamespace(**facts, config=config, laststop=0, get_state=lambda facts=facts: facts["state"])
        groups[name] = SimpleNamespace(config=SimpleNamespace(name=name), processes={config.name: process})
    return SimpleNamespace(options=SimpleNamespace(mood=mood), process_groups=groups, reap=lambda: None)


def test_the_short_form_says_what_supervisords_own_list_says() -> None:
    there = daemon()
    own = SupervisorNamespaceRPCInterface(there).getAllProcessInfo()

    short = json.loads(FleetInterface(there, Fork(SimpleNamespace(logger=None, fork=None))).listProcesses())

    assert short == [[row[key] for key in KEYS] for row in own]
    assert [row[0] for row in short] == ["a.1", "b.0"]


def test_the_short_form_comes_once_for_each_change_and_ended_processes_are_noticed_first() -> None:
    there = daemon()
    there.reap = lambda: there.process_groups.pop("b.0", None)
    interface = FleetInterface(there, Fork(SimpleNamespace(logger=None, fork=None)))

    mark, rows = json.loads(interface.listChangedProcesses(""))
    assert [row[0] for row in rows] == ["a.1"]
    assert json.loads(interface.listChangedProcesses(mark)) == [mark, None]

    there.process_groups["a.1"].processes["a.1@9f31c2ab"].laststart = 9
    other, rows = json.loads(interface.listChangedProcesses(mark))
    assert (other != mark, rows) == (True, json.loads(interface.listProcesses()))


def test_the_short_form_is_refused_as_every_call_is_while_it_shuts_down() -> None:
    there = daemon(mood=SupervisorStates.SHUTDOWN)
    with pytest.raises(RPCError) as caught:
        FleetInterface(there, Fork(SimpleNamespace(logger=None, fork=None))).listProcesses()
    assert caught.value.code == Fault.SHUTDOWN_STATE


@pytest.mark.system
def test_the_first_unforgiven_fault_of_many_calls_is_raised_after_all_were_made(world: World) -> None:
    world.run(replicas_of(spec_of(), 2))
    rpc = SupervisorRpc(world.places.socket, timeout_seconds=60)
    names = [row.full_name for row in rpc.processes()]
    rpc._lists_changes = rpc._lists = False
    assert [row.full_name for row in rpc.processes()] == names, "its own list and fleet's"

    with pytest.raises(Refusal, match="startProcess nobody:nobody"):
        rpc.start(["nobody:nobody", *names])
    rpc.stop(["nobody:nobody", *names])

    world.until_stopped(["thumbs.0", "thumbs.1"])
    rpc.close()


@pytest.mark.system
def test_one_backend_outlives_its_daemons(world: World) -> None:
    for _ in range(2):
        world.run(replicas_of(spec_of(), 1))
        world.remove(["thumbs.0"])
        world.backend.shutdown()
    world.backend.prepare(desired_of(spec_of()))
    assert world.backend.observe().up
