"""What is refused and what only reads leaves nothing behind, in the command itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import settings
from fleet.cli import main
from fleet.inputs import secrets
from fleet.operate.local_fleet import known_fleets
from tests.core.manifest.test_malformed import CORPUS

PLACED = re.compile(r"fleet\.yaml:\d+:\d+ ")


@pytest.mark.parametrize(("verb", "of_each"), [("apply", 1), ("plan", 10), ("validate", 10)])
def test_a_malformed_manifest_is_refused_and_nothing_is_written(
    verb: str, of_each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All three read it with the same function: one in so many is enough for two of them."""
    home, manifest = tmp_path / "home", tmp_path / "fleet.yaml"
    monkeypatch.setenv("FLEET_HOME", str(home))
    settings.load.cache_clear()
    placed = 0
    tried = list(CORPUS.items())[::of_each]
    for name, content in tried:
        manifest.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        code = main([verb, str(manifest)])
        said = capsys.readouterr()
        assert (code, said.out) == (3, ""), f"{name}: {code} {said.out}"
        assert "Traceback" not in said.err
        assert "nothing was touched" in said.err, name
        placed += bool(PLACED.search(said.err))
    settings.load.cache_clear()
    assert len(CORPUS) >= 200
    assert placed == len(tried)
    assert not home.exists()


GROUPS = "thumbs: {pool: solo, replicas: 2, queues: [thumbs], secretEnv: {KEY: key}}"
HEAD = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: nowhere:app
  broker: {broker}
  secrets: {{key: {secret}}}
  concurrency: {slots}
  groups:
    {groups}
"""
GOOD = {
    "broker": '{url: "redis://127.0.0.1:1/0"}',
    "secret": "{exec: [echo, hunter2]}",
    "slots": "10",
    "groups": GROUPS,
}
REFUSED = {
    "a secret's file is missing": ({"secret": "{file: nothing-here}"}, "nothing-here: No such file"),
    "a secret's command fails": ({"secret": '{exec: ["false"]}'}, "'false' failed: exit 1"),
    "a secret's command is missing": ({"secret": "{exec: [no-such-vault]}"}, "cannot run 'no-such-vault'"),
    "a secret's variable is not set": ({"secret": "{env: NO_SUCH_VARIABLE}"}, "NO_SUCH_VARIABLE is not set"),
    "a field is unknown": ({"groups": GROUPS.replace("queues:", "queue:")}, "unknown field 'queue'"),
    "the broker's URL makes no sense": ({"broker": '{url: "nonsense"}'}, "not the URL of a broker"),
    "the broker's program is missing": ({"broker": "embedded"}, "no such program"),
    "the broker's URL is a missing secret": ({"broker": "{url: {secret: other}}"}, "'other' is not declared"),
    "the budget is too small": ({"slots": "1"}, "the budget is 1"),
    "the app cannot be imported": ({"groups": "thumbs: {replicas: 2, queues: [thumbs]}"}, "cannot be imported"),
}
CHANGES = [
    ("apply", "--yes"),
    ("apply", "--dry-run"),
    ("plan",),
    ("plan", "--out", "plan.json"),
    ("scale", "thumbs=3", "--yes"),
]
READS = [  # words, exit code
    (("validate",), 0),
    (("plan",), 0),
    (("apply", "--dry-run"), 0),
    (("scale", "thumbs=3", "--dry-run"), 0),
    (("explain",), 0),
    (("explain", "--live"), 0),
    (("simulate",), 0),
    (("render",), 0),
    (("status",), 0),
    (("health",), 1),
    (("logs",), 0),
    (("stacks", "thumbs.0"), 1),
    (("history",), 0),
    (("events",), 0),
    (("doctor",), 0),
    (("doctor", "--fix"), 0),
    (("send", "tasks.add"), 10),
]
NEEDS_A_FLEET = [
    ("scale", "thumbs=3", "--live", "--yes"),
    ("restart", "thumbs", "--yes"),
    ("drain", "thumbs", "--yes"),
    ("pause", "thumbs", "--yes"),
    ("resume", "thumbs", "--yes"),
    ("rollback", "--yes"),
    ("controller", "--once"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where fleets would live; nothing is there yet."""
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "var" / "home"))
    monkeypatch.setenv("FLEET_REDIS_SERVER", str(tmp_path / "no-redis"))
    monkeypatch.chdir(tmp_path)
    settings.load.cache_clear()
    yield tmp_path / "var" / "home"
    settings.load.cache_clear()


def written(changed: dict[str, str]) -> str:
    """The name of a manifest with these parts changed."""
    Path("fleet.yaml").write_text(HEAD.format(**(GOOD | changed)))
    return "fleet.yaml"


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_leaves_nothing(
    why: str, words: tuple[str, ...], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = words
    changed, said = REFUSED[why]
    assert main([verb, written(changed), *rest]) != 0
    assert said in capsys.readouterr().err
    assert not home.parent.exists(), [str(path) for path in home.parent.rglob("*")]


@pytest.mark.parametrize(("words", "code"), READS, ids=str)
def test_a_verb_that_reads_leaves_nothing(words: tuple[str, ...], code: int, home: Path) -> None:
    verb, *rest = words
    assert main([verb, written({}), *rest]) == code
    assert not home.parent.exists(), [str(path) for path in home.parent.rglob("*")]


@pytest.mark.parametrize("words", NEEDS_A_FLEET, ids=" ".join)
def test_a_change_of_a_fleet_that_was_never_applied_leaves_nothing(
    words: tuple[str, ...], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = words
    assert main([verb, written({}), *rest]) != 0
    assert "Traceback" not in capsys.readouterr().err
    assert not home.parent.exists(), [str(path) for path in home.parent.rglob("*")]


def test_there_is_nothing_to_take_down_where_nothing_was_applied(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["down", written({}), "--yes"]) == 0
    assert "never applied" in capsys.readouterr().err
    assert not home.parent.exists()


def test_a_refusal_among_other_fleets_leaves_them_and_their_folder_as_they_were(home: Path) -> None:
    (home / "other" / "state").mkdir(parents=True)
    (home / "other" / "state" / "standing.json").write_text("{}")
    assert main(["apply", written(REFUSED["a secret's file is missing"][0]), "--yes"]) == 1
    assert [path.name for path in home.iterdir()] == known_fleets(home) == ["other"]


def test_a_kept_plan_makes_no_fleet_and_holds_when_it_is_applied(home: Path) -> None:
    """Its fingerprints of secrets need a key that outlives the process; the key alone is no fleet."""
    assert main(["plan", written({}), "--out", "plan.json"]) == 0
    assert known_fleets(home) == []
    settings.load.cache_clear()
    secrets._new_key.cache_clear()
    assert main(["apply", "plan.json", "--dry-run"]) == 0
