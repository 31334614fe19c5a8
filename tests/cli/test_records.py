"""What is kept of a fleet: revisions, audit, overrides, the last word; and what the machine lends."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from fleet.core.desired import Budgets, Price, RolloutPolicy
from fleet.errors import Damaged, FleetError, UsageError
from fleet.inputs import machine
from fleet.inputs.git import commit_of
from fleet.state import applied, overrides
from fleet.state.applied import Applied
from fleet.state.audit import Audit
from fleet.state.files import cannot_write, rewrite, write_all, write_whole
from fleet.state.overrides import Override
from fleet.state.revisions import KEPT_REVISIONS, History, Origin
from tests.worlds import fleet, group

HERE = Origin("/srv", ("/srv/fleet.yaml",))


def clock() -> Iterator[float]:
    return (float(number) for number in count(1000))


# --- revisions


def test_only_a_change_makes_a_revision(tmp_path: Path) -> None:
    history = History(tmp_path, now=clock().__next__)
    assert history.record({"a": 1}, origin=HERE, by="ana").number == 1
    assert history.record({"a": 1}, origin=HERE, by="bob").number == 1
    assert history.record({"a": 2}, origin=HERE, by="bob").number == 2
    assert history.record({"a": 1}, origin=HERE, by="bob", message="back").number == 3
    assert history.record({"a": 1}, origin=Origin("/elsewhere"), by="bob").number == 4, "relative paths lead elsewhere"
    assert [one.by for one in history.all()] == ["ana", "bob", "bob", "bob"]
    assert history.get(1).manifest == {"a": 1}


def test_the_newest_fifty_revisions_are_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number in range(KEPT_REVISIONS + 7):
        history.record({"a": number}, origin=HERE, by="ana")
    assert history.numbers() == list(range(8, KEPT_REVISIONS + 8))
    with pytest.raises(UsageError, match="no revision 3") as error:
        history.get(3)
    assert "kept are 8 to 57" in error.value.hint


def test_a_broken_revision_does_not_stop_the_next_one(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.record({"a": 1}, origin=HERE, by="ana")
    history.record({"a": 2}, origin=HERE, by="ana")
    (tmp_path / "0002.json").write_text("{half")
    with pytest.raises(Damaged, match=r"0002\.json is damaged"):
        history.latest()
    assert [revision.number for revision in history.all()] == [1]
    assert history.damaged() == [2]
    assert history.record({"a": 3}, origin=HERE, by="ana").number == 3
    with pytest.raises(Damaged):
        history.get(2)


def test_revisions_are_for_their_owner_only(tmp_path: Path) -> None:
    History(tmp_path).record({"a": 1}, origin=HERE, by="ana")
    assert (tmp_path / "0001.json").stat().st_mode & 0o777 == 0o600


# --- audit


def test_audit_lines_carry_time_person_and_process(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "a.ndjson", now=lambda: 12.5)
    audit.write({"event": "x"}, {"event": "y"})
    first, second = audit.read()
    assert (first["at"], first["pid"], first["event"], second["event"]) == (12.5, os.getpid(), "x", "y")
    assert first["by"]


def test_the_one_who_called_sudo_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ana")
    audit = Audit(tmp_path / "a.ndjson")
    audit.write({"event": "x"})
    assert audit.read()[0]["by"] == "ana"


def test_a_line_cut_by_a_crash_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    audit = Audit(path)
    audit.write({"event": "before"})
    with path.open("a") as file:
        file.write('{"at": 1, "event": "torn')
    audit.write({"event": "after"})
    assert [entry["event"] for entry in audit.read()] == ["before", "after"]
    assert [entry["event"] for entry in audit.read(last=1)] == ["after"]


def _write_many(path: str) -> None:
    audit = Audit(Path(path))
    for number in range(100):
        audit.write({"event": "x" * 200, "number": number})


def test_lines_of_many_processes_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_many, args=(str(path),)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()
    assert [line for line in lines if not line] == []  # a separator beside another's entry: seen when they raced
    assert len(lines) == 300
    assert all(json.loads(line)["event"] == "x" * 200 for line in lines)


def test_following_yields_what_is_written_later(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "a.ndjson")
    audit.write({"event": "old"})
    asked = threading.Event()

    def sleep(_seconds: float) -> None:
        if not asked.is_set():
            asked.set()
            audit.write({"event": "new"})

    assert next(audit.follow(sleep=sleep))["event"] == "new"


# --- overrides


def test_overrides_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "overrides.yaml"
    made = (
        Override("replicas", "thumbs", 1000.0, "ana", "sale: 50% off", 5000.0, 14),
        Override("paused", "reports", 1000.0, "bob"),
    )
    overrides.write(path, made, fleet="shop", now=2000.0)
    assert overrides.read(path) == made
    assert path.read_text().startswith("# Live exceptions to the manifest of fleet shop.")
    assert str(made[0]) == "thumbs 14 replicas until 1970-01-01T01:23:20Z, by ana: sale: 50% off"


def test_overrides_in_force(tmp_path: Path) -> None:
    made = (Override("replicas", "a", 0, "ana", until=10.0, replicas=4), Override("drained", "b.1", 0, "ana"))
    early, late = (overrides.in_force(made, now=now) for now in (9.0, 10.0))
    assert early.replicas == {"a": 4}
    assert late.replicas == {}
    assert early.drained == late.drained == {"b.1"}


def test_without_overrides_there_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "overrides.yaml"
    ended = Override("paused", "a", 0, "ana", until=10.0)
    overrides.write(path, (ended,), fleet="shop", now=5.0)
    assert path.exists()
    overrides.write(path, (ended,), fleet="shop", now=50.0)
    assert not path.exists()
    assert overrides.read(path) == ()


def test_a_later_override_replaces_an_earlier_one_and_a_group_ends_those_of_its_replicas() -> None:
    first = Override("replicas", "a", 0, "ana", replicas=3)
    second = Override("replicas", "a", 1, "bob", replicas=5)
    drained = Override("drained", "a.1", 0, "ana")
    assert overrides.added((first, drained), second) == (drained, second)
    assert overrides.ended((second, drained), ["a"]) == ()
    assert overrides.ended((second, drained), ["a.1"]) == (second,)
    assert overrides.ended((second, drained), ["a"], kinds=frozenset({"drained"})) == (second,)


@pytest.mark.parametrize("text", ["- 3", "- {kind: nonsense, target: a, at: '2020-01-01', by: x}", ": : :", "- {}"])
def test_a_file_broken_by_hand_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "overrides.yaml"
    path.write_text(text)
    with pytest.raises(FleetError, match=r"overrides\.yaml is damaged"):
        overrides.read(path)


def test_an_override_written_by_hand_may_have_a_bare_time(tmp_path: Path) -> None:
    path = tmp_path / "overrides.yaml"
    path.write_text("- {kind: paused, target: a, at: 2026-11-21T05:00:00Z, by: ana, until: 2026-11-21}\n")
    (one,) = overrides.read(path)
    assert one.until == datetime(2026, 11, 21, tzinfo=UTC).timestamp()


# --- the last word


def test_the_last_word_round_trips(tmp_path: Path) -> None:
    price = Price(1 << 20, 2 << 20, (("postgres", 1),), (("redis", 2),))
    web = group("web", 4, 4, 2, price=price, rollout=RolloutPolicy("recreate", 0, 2, "rollback"), depends_on=("a",))
    desired = fleet(group("a", 1), web, budgets=Budgets(8, 9, 10, (("postgres", 3),)), drained=frozenset({"web.1"}))
    word = Applied(desired, revision=4, good=3)
    applied.save(tmp_path / "standing.json", word)
    assert applied.load(tmp_path / "standing.json") == word


def test_a_word_of_another_version_is_no_word(tmp_path: Path) -> None:
    path = tmp_path / "standing.json"
    path.write_text('{"format": 99}')
    assert applied.load(path) is None
    assert applied.load(tmp_path / "none.json") is None


# --- files


def test_a_rewritten_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    rewrite(link, "new", was=b"old")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(FleetError, match="cannot write"):
        write_whole(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_several_files_are_replaced_only_when_all_could_be_written(tmp_path: Path) -> None:
    one, lost = tmp_path / "one", tmp_path / "missing" / "two"
    one.write_text("old")
    with pytest.raises(FleetError, match=f"cannot write {lost}"):
        write_all({one: b"new", lost: b"new"})
    assert one.read_text() == "old"
    assert list(tmp_path.iterdir()) == [one]

    write_all({one: b"new"})
    assert (one.read_text(), one.stat().st_mode & 0o777) == ("new", 0o600)


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "free some space there"), (errno.EACCES, "run as the user who owns the fleet")]
)
def test_what_to_do_about_a_file_depends_on_why_it_cannot_be_written(number: int, hint: str) -> None:
    assert hint in cannot_write(Path("/there"), OSError(number, "why")).hint


# --- the machine


def cgroup(folder: Path, inner: str, quota: str) -> tuple[Path, Path]:
    place = folder / "cgroup" / inner.strip("/")
    place.mkdir(parents=True)
    (place / "cpu.max").write_text(quota)
    own = folder / "own"
    own.write_text(f"0::{inner}/deeper\n")
    return folder / "cgroup", own


def test_cores_are_bounded_by_any_control_group_around(tmp_path: Path) -> None:
    assert machine.cpus(*cgroup(tmp_path, "/slice/box", "50000 100000\n")) == 1


def test_no_quota_means_every_core_of_the_affinity(tmp_path: Path) -> None:
    assert machine.cpus(*cgroup(tmp_path, "/slice", "max 100000\n")) == len(os.sched_getaffinity(0))
    assert machine.cpus(tmp_path / "no", tmp_path / "no") == len(os.sched_getaffinity(0))


def test_quotas_of_the_old_control_groups_count_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.cpus(tmp_path, tmp_path / "no") == 1


def test_a_release_link_is_followed_and_the_interpreter_of_its_environment_is_not(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "7"
    (release / "venv" / "bin").mkdir(parents=True)
    (release / "venv" / "bin" / "python").symlink_to("/usr/bin/env")
    (tmp_path / "current").symlink_to(release)
    paths = machine.real_paths(["current", "current/venv/bin/python", None], base=str(tmp_path))
    assert paths == {
        "current": str(release),
        "current/venv/bin/python": str(release / "venv" / "bin" / "python"),
    }


# --- the checkout


def checkout(folder: Path) -> Path:
    git = folder / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text("a" * 40 + "\n")
    (folder / "deep" / "down").mkdir(parents=True)
    return folder


def test_the_commit_around_a_folder(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    assert commit_of(root / "deep" / "down") == {"sha": "a" * 40, "branch": "main"}


def test_a_packed_branch_and_a_detached_head(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    (root / ".git/refs/heads/main").unlink()
    (root / ".git/packed-refs").write_text(f"# pack-refs\n{'b' * 40} refs/heads/main\n^{'c' * 40}\n")
    assert commit_of(root) == {"sha": "b" * 40, "branch": "main"}
    (root / ".git/HEAD").write_text("d" * 40 + "\n")
    assert commit_of(root) == {"sha": "d" * 40}


def test_a_worktree_and_a_folder_outside_of_any(tmp_path: Path) -> None:
    root = checkout(tmp_path / "repo")
    git = root / ".git" / "worktrees" / "two"
    git.mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "commondir").write_text("../..\n")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / ".git").write_text(f"gitdir: {git}\n")
    assert commit_of(tmp_path / "two")["sha"] == "a" * 40
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / ".git").write_text("gitdir: /nowhere\n")
    assert commit_of(tmp_path / "broken") == {}
