"""Whatever stands in a file or message of others: a value, or an error in words. `make fuzz` looks for longer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker.delivery import Delivery
from fleet.broker.message_body import BadMessage, decoded, payload_in
from fleet.cli.saved_plan import FORMAT, KIND, check_seal, manifest_in, read_saved
from fleet.core.manifest.parse import Source, parse
from fleet.errors import FleetError
from fleet.inputs.git import commit_of
from fleet.replica import launch_document, record
from fleet.replica.crash_history import read_history
from fleet.replica.launch_document import DocumentError
from fleet.state import applied, controller_heartbeat, decisions, overrides
from fleet.state.audit import Audit
from fleet.state.revisions import History

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


def read_plan(path: Path) -> None:
    if (document := read_saved(str(path))) is not None:
        check_seal(document, str(path), key=b"k" * 32)


def read_manifest_of_plan(path: Path) -> None:
    with contextlib.suppress(ValueError):
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
def test_a_file_of_others_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_bytes(data)
    with contextlib.suppress(FleetError, DocumentError):
        READERS[name](path)


@given(
    data=DATA, compression=st.sampled_from(["", "gzip", "bzip2", "xz", "none"]), kind=st.sampled_from(["json", "yaml"])
)
def test_a_body_of_others_is_read_or_refused(data: bytes, compression: str, kind: str) -> None:
    headers = {"compression": compression} if compression else {}
    delivery = Delivery("1", "q", data, headers, content_type=f"application/{kind}")
    with contextlib.suppress(BadMessage):
        payload_in(decoded(delivery, {"json"}))
