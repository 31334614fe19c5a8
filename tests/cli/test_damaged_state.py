"""Every file of a fleet, damaged in every way, against every verb: no traceback, and the damage is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Desk

GARBAGE = b"\xff\xfe\x00{]'\": %\n" * 20


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def garbage(path: Path) -> None:
    path.write_bytes(GARBAGE)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_map(path: Path) -> None:
    path.write_text('{"format": 1, "groups": 7, "look": {}, "slots": [], "desired": {}, "origin": []}\n')


def a_folder(path: Path) -> None:
    """What nobody can read, root neither."""
    path.unlink()
    path.mkdir()


DAMAGES: tuple[Callable[[Path], None], ...] = (truncated, garbage, empty, another_map, a_folder)
FILES = (
    *("state/overrides.yaml", "state/standing.json", "state/decisions.json", "state/revisions/0002.json"),
    "state/migration.json",
    *("state/audit.ndjson", "state/key", "run/controller.json", "run/lock"),
)
READING = (
    *("status", "status -o json", "plan fleet.yaml", "history", "events", "logs", "explain", "explain --live"),
    *("controller --once", "render"),
)
CHANGING = (
    *("apply fleet.yaml", "scale reports=2 --live", "restart thumbs.0", "drain thumbs", "pause thumbs"),
    *("resume --all", "rollback", "rollback --to 1", "down --yes"),
)
SECRET = "    hidden: {pool: solo, replicas: 1, queues: [hidden], secretEnv: {KEY: word}}\n"


@pytest.fixture
def home(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet with two revisions, an exception, a decision, a secret: every file there is."""
    monkeypatch.setenv("WORD", "hush")
    desk.write(thumbs=2, more=SECRET)
    text = desk.manifest.read_text()
    desk.manifest.write_text(text.replace("spec:\n", "spec:\n  secrets: {word: {env: WORD}}\n", 1))
    desk.fleet("apply")
    desk.manifest.write_text(desk.manifest.read_text().replace("replicas: 2", "replicas: 3"))
    desk.fleet("apply")
    desk.fleet("pause", "clock", "--fleet", "shop")
    root = desk.folder / "home" / "shop"
    (root / "state" / "decisions.json").write_text('{"format": 1, "at": 1.0, "slots": {}, "reasons": {}}')
    begun = {"fleet": "shop", "context": "here", "namespace": "shop", "host": "box", "began": 1.0, "by": "me"}
    (root / "state" / "migration.json").write_text(json.dumps({"format": 1, **begun, "groups": {}}))
    (root / "run").mkdir(exist_ok=True)
    (root / "run" / "controller.json").write_text('{"format": 1, "look": {}, "memory": {}, "meters": {}}')
    (root / "run" / "lock").write_text('{"pid": 1}')
    return root


def words(verb: str) -> list[str]:
    return [*verb.split(), *([] if ".yaml" in verb or "--fleet" in verb else ["--fleet", "shop"])]


@pytest.mark.parametrize("file", FILES)
def test_no_damage_makes_a_traceback_and_what_fails_says_which_file(desk: Desk, home: Path, file: str) -> None:
    kept = home.with_name("kept")
    shutil.copytree(home, kept)
    for damage in DAMAGES:
        for verb in (*READING, *CHANGING):
            damage(home / file)
            said = desk.fleet(*words(verb), code=None)  # whatever is not a FleetError is raised here
            where = f"{verb}, {file} {damage.__name__}: exit {said.code}\n{said.out}{said.err}"
            if said.code not in {0, 2}:
                assert Path(file).name in said.err, where
                assert "hint:" in said.err, where
            shutil.rmtree(home)
            shutil.copytree(kept, home)
            if verb in CHANGING:
                desk.fleet("apply")


SAYING = {
    "state/overrides.yaml": ("plan fleet.yaml", "apply fleet.yaml", "explain", "resume --all", "status"),
    "state/standing.json": ("status", "explain --live", "history", "logs", "apply fleet.yaml", "down --yes"),
    "state/decisions.json": ("plan fleet.yaml", "apply fleet.yaml", "explain"),
    "state/revisions/0002.json": ("restart thumbs.0", "pause thumbs", "history", "explain"),
    "state/audit.ndjson": ("events",),
    "state/key": ("plan fleet.yaml", "apply fleet.yaml"),
}


@pytest.mark.parametrize("file", SAYING)
@pytest.mark.parametrize("damage", [truncated, garbage, a_folder], ids=lambda one: one.__name__)
def test_a_verb_that_needs_a_damaged_file_says_so(
    desk: Desk, home: Path, file: str, damage: Callable[[Path], None]
) -> None:
    kept = home.with_name("kept")
    shutil.copytree(home, kept)
    for verb in SAYING[file]:
        damage(home / file)
        said = desk.fleet(*words(verb), code=None)
        text = said.out + said.err
        assert "damaged" in text or "cannot" in text, f"{verb}: {text}"
        assert Path(file).name in text or "revision 2" in text, f"{verb}: {text}"
        shutil.rmtree(home)
        shutil.copytree(kept, home)
        if verb in CHANGING:
            desk.fleet("apply")


def test_an_empty_file_of_exceptions_does_not_wake_what_is_paused(desk: Desk, home: Path) -> None:
    empty(home / "state" / "overrides.yaml")
    said = desk.fleet("apply", code=1)

    assert "overrides.yaml is damaged: it is empty" in said.err
    assert "clock.0" not in desk.pids()


def test_a_damaged_newest_revision_is_not_replaced_by_an_older_one(desk: Desk, home: Path) -> None:
    truncated(home / "state" / "revisions" / "0002.json")
    before = desk.pids()
    said = desk.fleet("restart", "thumbs", "--fleet", "shop", code=1)

    assert "0002.json is damaged" in said.err
    assert desk.pids() == before
    desk.fleet("apply")
    assert desk.fleet("history", "--fleet", "shop", "-o", "json").json["revisions"][-1]["revision"] == 3


def test_a_change_writes_a_damaged_last_word_again(desk: Desk, home: Path) -> None:
    garbage(home / "state" / "standing.json")
    said = desk.fleet("apply")

    assert "standing.json is damaged" in said.err
    assert "written again" in said.err
    assert desk.fleet("status", "--fleet", "shop", "-o", "json").json["revision"] == 2


def test_a_fleet_with_a_damaged_last_word_can_be_taken_down(desk: Desk, home: Path) -> None:
    garbage(home / "state" / "standing.json")
    desk.fleet("down", "--fleet", "shop", "--yes")

    assert desk.pids() == {}


@pytest.mark.parametrize("damage", [truncated, empty, garbage, a_folder], ids=lambda one: one.__name__)
def test_status_and_top_show_what_runs_when_nobody_knows_what_was_applied(
    desk: Desk, home: Path, damage: Callable[[Path], None]
) -> None:
    damage(home / "state" / "standing.json")
    running = set(desk.pids())

    said = desk.fleet("status", "--fleet", "shop")
    (line,) = [one for one in said.out.splitlines() if "standing.json" in one]
    assert line.startswith("warning: ")
    assert "`fleet apply MANIFEST` writes it again" in line
    assert running
    assert all(name.rpartition(".")[0] in said.out for name in running)
    assert "standing.json" in desk.fleet("status", "--fleet", "shop", "--totals").out
    assert "standing.json" in desk.fleet("top", "--fleet", "shop").err

    told = desk.fleet("status", "--fleet", "shop", "-o", "json")
    assert "standing.json" in told.err
    assert {one["name"] for group in told.json["groups"].values() for one in group["workers"]} >= running
    assert told.json["ready"] is False
    desk.fleet("status", "--fleet", "shop", "--exit-code", code=4)
