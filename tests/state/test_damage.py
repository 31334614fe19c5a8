"""What readers of a fleet's own files make of files that fleet did not write: nothing, or Damaged; never a guess."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import Damaged
from fleet.state import applied, decisions, overrides
from fleet.state import audit as audit_module
from fleet.state.audit import Audit
from fleet.state.lock import holder
from fleet.state.paths import Places
from fleet.state.revisions import History

READERS: dict[str, Callable[[Path], Any]] = {
    "standing.json": applied.load,
    "decisions.json": decisions.read,
    "overrides.yaml": overrides.read,
    "0001.json": lambda path: History(path.parent).latest(),
    "audit.ndjson": lambda path: Audit(path).read(),
}
WHOLE_TEXTS = (b"", b" \n", b"null", b"7", b'"text"', b"[1, 2]", b"[" * 100_000, b"\xff\x00", b"{", b"{a: [}")


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_such_document_is_damaged(tmp_path: Path, name: str) -> None:
    for text in WHOLE_TEXTS:
        (tmp_path / name).write_bytes(text)
        if name == "audit.ndjson":
            assert READERS[name](tmp_path / name) == [], text
            continue
        with pytest.raises(Damaged, match=f"{name} is damaged"):
            READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_what_cannot_be_read_is_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(Damaged, match="Is a directory"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_there_is_no_damage(tmp_path: Path, name: str) -> None:
    assert not READERS[name](tmp_path / name) or name == "decisions.json"


SOMETHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("format", "desired", "revision", "good", "down", "slots", "at", "reasons", "origin", "number", "manifest")


@given(document=st.dictionaries(st.sampled_from(KEYS), SOMETHING))
def test_a_document_of_another_shape_is_nothing_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    for name, read in READERS.items():
        (folder / name).write_text(json.dumps(document))
        with contextlib.suppress(Damaged):
            read(folder / name)


def test_a_lock_file_of_another_shape_names_nobody(tmp_path: Path) -> None:
    places = Places(tmp_path / "shop")
    places.run.mkdir(parents=True)
    for text in ('{"pid": "x", "command": 1, "user": [], "since": null}', "[", "[" * 100_000, ""):
        places.lock.write_text(text)
        assert holder(places) is None


def test_lines_of_an_audit_that_are_none_are_counted(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.ndjson", now=lambda: 1.0)
    audit.write({"event": "before"})
    with audit.path.open("ab") as file:
        file.write(b'{"at": "soon"}\n\xff\xfe\n{"at": 1.0, "eve')
    audit.write({"event": "after"})

    assert [entry["event"] for entry in audit.read()] == ["before", "after"]
    assert audit.unreadable() == 3


def test_an_audit_is_moved_aside_when_it_is_long_and_no_entry_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "LIMIT_BYTES", 1000)
    audit = Audit(tmp_path / "audit.ndjson", now=lambda: 1.0)
    audit.write({"event": "first"})
    for number in range(60):
        audit.write({"event": str(number)})

    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) >= 3
    assert [entry["event"] for entry in audit.read()] == ["first", *map(str, range(60))]
    assert [entry["event"] for entry in audit.read(last=2)] == ["58", "59"]
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 1200


def test_a_follower_reads_over_the_moving_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "LIMIT_BYTES", 500)
    audit = Audit(tmp_path / "audit.ndjson", now=lambda: 1.0)
    audit.write({"event": "before"})
    left = iter(range(30))
    followed = audit.follow(sleep=lambda _seconds: audit.write({"event": str(next(left))}))

    assert [next(followed)["event"] for _ in range(30)] == list(map(str, range(30)))
    assert len(list(tmp_path.iterdir())) >= 3


def test_writers_of_several_processes_lose_nothing_while_it_moves_aside(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom fleet.state import audit\naudit.LIMIT_BYTES = 4000\n"
        "for number in range(50): audit.Audit(Path(sys.argv[1])).write({'event': f'{sys.argv[2]}-{number}'})\n"
    )
    path = tmp_path / "audit.ndjson"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(one)]) for one in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    events = [entry["event"] for entry in Audit(path).read()]

    assert sorted(events) == sorted(f"{one}-{number}" for one in range(3) for number in range(50))
