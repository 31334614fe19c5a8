"""Whatever stands in a file or message of others: a value, or an error in words. `make fuzz` looks for longer."""

from __future__ import annotations

import contextlib
import json
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.authoring.convert import AUTO, KINDS, Input, import_files
from fleet.backends.supervisor.rpc import SupervisorRpc
from fleet.broker.channels.redis.unsent_acks import read_left
from fleet.broker.delivery import Delivery
from fleet.broker.message import TaskMessage
from fleet.broker.message_body import BadMessage, decoded, payload_in
from fleet.cli.saved_plan import FORMAT, KIND, check_seal, manifest_in, read_saved
from fleet.core.manifest.parse import Source, parse
from fleet.errors import FleetError
from fleet.inputs.env_from import variables_in
from fleet.inputs.git import commit_of
from fleet.operate.controller import healing, memory_file
from fleet.replica import counters, ending, launch_document, record, task_counters
from fleet.replica import image as images
from fleet.replica.crash_history import read_history
from fleet.replica.launch_document import DocumentError
from fleet.state import applied, controller_heartbeat, decisions, overrides, rollout_orders
from fleet.state.audit import Audit
from fleet.state.paths import Places
from fleet.state.revisions import History
from fleet.worker.apps.celery_request import CeleryRequest
from fleet.worker.task.call import Call, TaskPolicy
from fleet.worker.task.job import Job
from fleet.worker.task.request import Request
from tests.worker.hostile import HEADERS, LIMITS

KEYS = (
    *(
        "format",
        "fleet",
        "replica",
        "digest",
        "spec",
        "secrets",
        "record",
        "log",
        "starts",
        "program",
        "lives",
        "began",
    ),
    *(
        "deaths",
        "desired",
        "revision",
        "good",
        "down",
        "groups",
        "manifest",
        "origin",
        "base",
        "sources",
        "git",
        "number",
    ),
    *("at", "by", "message", "facts", "outcome", "kind", "target", "until", "replicas", "slots", "reasons", "metadata"),
    *("name", "apiVersion", "broker", "pool", "queues", "env", "plan", "prune", "seal", "args", "kwargs", "__type__"),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1", "redis://h", "${env:X}", "x" * 300, "\x1b[2J", "datetime", "1h", FORMAT]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12).map(lambda value: json.dumps(value).encode())
DATA = st.one_of(DOCUMENTS, VALUES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=600))
LINES_OF_INI = st.sampled_from(
    [
        "[program:web]",
        "[program:%(x)s]",
        "[group:g]",
        "programs=web,web",
        "[include]",
        "files=*",
        "command=celery -A shop worker -c 4 -Q a,b",
        "command=sh -c '",
        "numprocs=%(ENV_N)s",
        "numprocs=999999999999",
        "process_name=%(program_name)s_%(process_num)02d",
        "environment=A='1,B",
        "stopwaitsecs=nan",
        "web: celery -A shop worker --concurrency ${N:-2",
        "CELERYD_NODES='a b'",
        "CELERYD_OPTS='-c:a 5 -Q'",
        "[Service]",
        "ExecStart=/bin/celery multi start 10000000 -A shop",
        "services: {web: {command: [celery, -A, a, worker], deploy: {replicas: 1e9}}}",
        "services: &a [*a]",
        "\\",
    ]
) | st.text(max_size=20)
LINES_OF_DOTENV = st.sampled_from(
    ["A=1", "export B='x", 'C="y\\', "=", "D='", "'", '"', "E=#", "\ufeffF=1", "G\x00=1"]
) | st.text(max_size=12)
ROW_KEYS = ("group", "name", "state", "pid", "start", "exitstatus", "spawnerr")
CELERY = Celery("hostile", set_as_current=False)
WHAT_A_REQUEST_SAYS = tuple(
    name for kind in (Request, CeleryRequest) for name, found in vars(kind).items() if isinstance(found, property)
)
WHAT_A_MESSAGE_SAYS = tuple(name for name, found in vars(TaskMessage).items() if isinstance(found, property))


def read_plan(path: Path) -> None:
    if (document := read_saved(str(path))) is not None:
        check_seal(document, str(path), key=b"k" * 32)


def read_manifest_of_plan(path: Path) -> None:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            manifest_in({**found, "kind": KIND}, str(path))


def read_revision(path: Path) -> None:
    path.rename(path.with_name("0001.json"))
    History(path.parent).latest()


def read_checkout(path: Path) -> None:
    folder = path.parent / ".git"
    folder.mkdir(exist_ok=True)
    path.rename(folder / "HEAD")
    commit_of(path.parent)


READERS: dict[str, Callable[[Path], Any]] = {
    "launch document": launch_document.read,
    "record": record.read,
    "crash history": read_history,
    "applied": applied.load,
    "decisions": decisions.read,
    "overrides": overrides.read,
    "heartbeat": controller_heartbeat.read,
    "audit": lambda path: Audit(path).read(),
    "revision": read_revision,
    "kept plan": read_plan,
    "manifest of a kept plan": read_manifest_of_plan,
    "checkout": read_checkout,
    "manifest": lambda path: parse([Source("fleet.yaml", path.read_bytes())], environ={"X": "x"}),
}


@pytest.mark.parametrize("name", READERS)
@given(data=DATA)
@example(data=b"[" * 100_000)
@example(data=b'{"a":' * 100_000)
def test_a_file_of_others_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_bytes(data)
    with contextlib.suppress(FleetError, DocumentError):
        READERS[name](path)


def read_image(path: Path) -> None:
    folder = path.parent / "images"
    folder.mkdir(exist_ok=True)
    path.rename(folder / "abc.json")
    for state in images.states(folder):
        assert state.shown


def read_healing(path: Path) -> None:
    root = path.parent / "fleet"
    places = Places(root)
    places.healing.parent.mkdir(parents=True, exist_ok=True)
    path.rename(places.healing)
    healing._read(SimpleNamespace(places=places))  # type: ignore[arg-type]


OWN: dict[str, Callable[[Path], Any]] = {
    "counters": counters.read_counters,
    "task counters": task_counters.read_counters,
    "ending": ending.read_ending,
    "image": read_image,
    "healing": read_healing,
    "controller's memory": memory_file.read,
    "rollout's orders": lambda path: rollout_orders.read(path, pid=1),
    "unsent acknowledgements": read_left,
}
"""Files that only fleet's own processes write, and that a full disk or a crash may leave in any state."""


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=40)
@given(data=DATA)
@example(data=b"[" * 100_000)
@example(data=b'{"a":' * 100_000)
def test_a_file_of_fleets_own_in_any_state_is_read_or_ignored(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "own.json"
    path.write_bytes(data)
    with contextlib.suppress(FleetError):
        OWN[name](path)


@given(
    data=DATA, compression=st.sampled_from(["", "gzip", "bzip2", "xz", "none"]), kind=st.sampled_from(["json", "yaml"])
)
def test_a_body_of_others_is_read_or_refused(data: bytes, compression: str, kind: str) -> None:
    headers = {"compression": compression} if compression else {}
    delivery = Delivery("1", "q", data, headers, content_type=f"application/{kind}")
    with contextlib.suppress(BadMessage):
        payload_in(decoded(delivery, {"json"}))


HEADER_NAMES = st.sampled_from(HEADERS) | st.text(max_size=8)
ABSURD_VALUES = st.sampled_from(LIMITS) | VALUES


@given(headers=st.dictionaries(HEADER_NAMES, ABSURD_VALUES, max_size=10) | VALUES, body=DATA, named=st.booleans())
def test_headers_of_others_are_read_or_refused(headers: Any, body: bytes, named: bool) -> None:
    if named and isinstance(headers, dict):
        headers = {"task": "t", "id": "i", **headers}
    with contextlib.suppress(BadMessage):
        message = TaskMessage.from_delivery(Delivery("1", "q", body, headers, properties=headers), accept={"json"})
        for name in WHAT_A_MESSAGE_SAYS:
            getattr(message, name)
        message.request(hostname="h")


@given(headers=st.dictionaries(HEADER_NAMES, ABSURD_VALUES, max_size=10))
@example(headers={"delivery_info": True, "stamps": True, "stamped_headers": [1, "a"], "replaced_task_nesting": "x"})
def test_receivers_of_signals_see_any_task_of_others(headers: Any) -> None:
    headers = {**headers, "task": "t", "id": "i"}
    delivery = Delivery("1", "q", b"[[], {}, {}]", headers, properties=headers)
    message = TaskMessage.from_delivery(delivery, accept={"json"})
    call = Call("i", "t", headers, delivery.body, queue="q", properties=headers)
    job = Job(delivery, message, call, TaskPolicy(), ("i", 0))
    request = CeleryRequest(job, app=CELERY, hostname="h", task=CELERY.tasks["celery.accumulate"])
    for name in WHAT_A_REQUEST_SAYS:
        with contextlib.suppress(BadMessage):
            getattr(request, name)
    request.info()
    request.humaninfo()


@given(
    text=st.text(max_size=200) | st.lists(LINES_OF_INI, max_size=12).map("\n".join),
    kind=st.sampled_from((AUTO, *KINDS)),
)
@example(text="[program:a]\nx\n  y", kind="supervisor")
def test_a_file_to_take_over_is_read_or_refused(text: str, kind: str) -> None:
    with contextlib.suppress(FleetError):
        import_files(kind, [Input("theirs", text, ".")], name="shop")


@given(text=st.text(max_size=200) | st.lists(LINES_OF_DOTENV, max_size=12).map("\n".join))
def test_a_file_of_variables_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(FleetError):
        for name, value in variables_in(text, source=".env").items():
            assert name.isidentifier()
            assert "\r\n" not in value


def marshalled(value: Any) -> bytes:
    with contextlib.suppress(TypeError, OverflowError, UnicodeError):
        return xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()
    return b""


ROWS = st.lists(st.dictionaries(st.sampled_from(ROW_KEYS), VALUES, max_size=7) | VALUES, max_size=3)


@given(answer=st.one_of(st.binary(max_size=300), VALUES.map(marshalled), ROWS.map(marshalled)))
def test_an_answer_of_supervisord_is_read_or_refused(answer: bytes) -> None:
    def ask(*_: Any) -> Any:
        return xmlrpc.client.loads(answer)[0][0]

    rpc = SupervisorRpc(Path("/nowhere"), timeout_seconds=1.0)
    names = ("getState", "getPID", "getAllProcessInfo", "reloadConfig")
    server = SimpleNamespace(**dict.fromkeys(names, ask))
    rpc._proxy = lambda _: lambda: None  # type: ignore[assignment]
    rpc._proxy.supervisor = server
    rpc._proxy.system = SimpleNamespace(multicall=ask)
    rpc._proxy.fleet = SimpleNamespace(listProcesses=ask)
    for call in (rpc.processes, rpc.pid, rpc.reload, lambda: rpc.stop(["a:a"]), rpc.ping):
        with contextlib.suppress(FleetError):
            call()
