"""docs/security.md says of every verb what it reads, runs and writes, and the verbs do that and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.cli.verb_list import VERBS
from tests.cli.conftest import Desk

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "security.md"


@dataclass(frozen=True)
class Row:
    reads: str
    runs: str
    writes: str


def rows() -> Iterator[tuple[str, Row]]:
    text = PAGE.read_text()
    table = text[text.index("| verb | reads | runs | writes |") :].split("\n\n")[0]
    for line in table.splitlines()[2:]:
        verbs, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for verb in re.findall(r"`([a-z]+)`", verbs):
            yield verb, Row(*cells)


TABLE = dict(rows())

LINES: dict[str, tuple[str, ...]] = {
    "version": ("version",),
    "completion": ("completion bash",),
    "schema": ("schema",),
    "validate": ("validate", "validate fleet.yaml"),
    "simulate": ("simulate",),
    "history": ("history",),
    "events": ("events",),
    "logs": ("logs",),
    "health": ("health",),
    "stacks": ("stacks",),
    "metrics": ("metrics",),
    "status": ("status", "status fleet.yaml", "status --fleet shop"),
    "wait": ("wait --timeout 0",),
    "top": ("top",),
    "doctor": ("doctor", "doctor fleet.yaml"),
    "plan": ("plan",),
    "diff": ("diff",),
    "explain": ("explain",),
    "render": ("render",),
    "send": ("send shop.work --queue thumbs",),
    "service": ("service install --print fleet.yaml",),
    "apply": ("apply --yes",),
    "scale": ("scale thumbs=4 --yes",),
    "drain": ("drain thumbs --yes",),
    "pause": ("pause thumbs --yes",),
    "down": ("down --yes",),
}
ELSEWHERE = {
    "dashboard": "tests/operate/dashboard",
    "init": "tests/authoring",
    "migrate": "needs a cluster: tests/operate/migrate",
    "notify": "tests/operate/notify",
    "rollback": "needs two revisions: tests/cli/test_revisions.py",
    "run": "tests/system/test_run.py",
    "sync": "tests/operate/sync",
    "controller": "tests/operate/controller",
    "restart": "tests/cli/test_steering.py",
    "resume": "tests/cli/test_steering.py",
    "rollout": "tests/cli/test_rollout.py",
    "worker": "tests/system",
}


def test_every_verb_has_its_row_and_there_is_no_other() -> None:
    assert sorted(verb for verb, _ in rows()) == sorted(VERBS)


def test_every_verb_is_tried_here_or_elsewhere() -> None:
    assert LINES.keys() | ELSEWHERE.keys() == VERBS.keys()
    assert not LINES.keys() & ELSEWHERE.keys()


@pytest.fixture
def ran(desk: Desk) -> Path:
    """An applied fleet whose secret and app leave a word in this file when they run."""
    ran = desk.folder / "ran"
    (desk.folder / "shop.py").write_text(
        f"import fleet\nopen({str(ran)!r}, 'a').write('app ')\napp = fleet.Tasks('shop', broker='redis://localhost/0')\n"
    )
    desk.write(more="    more: {replicas: 1, queues: [q], secretEnv: {KEY: word}}\n")
    secret = f"  secrets: {{word: {{exec: [sh, -c, 'echo secret >> {ran}; echo x']}}}}\n  groups:\n"
    desk.manifest.write_text(desk.manifest.read_text().replace("  groups:\n", secret, 1))
    desk.fleet("apply", "--yes")
    assert set(ran.read_text().split()) == {"app", "secret"}
    ran.unlink()
    return ran


def files(desk: Desk) -> dict[str, tuple[int, int]]:
    found = [path for path in desk.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


@pytest.mark.parametrize(("verb", "line"), [(verb, line) for verb, lines in LINES.items() for line in lines])
def test_a_verb_runs_and_writes_what_the_page_says(desk: Desk, ran: Path, verb: str, line: str) -> None:
    row, before = TABLE[verb], files(desk)
    desk.fleet(*line.split(), code=None)
    says_it_runs = row.runs.startswith("what plan runs") or row.runs.startswith("`install` what plan runs")
    assert says_it_runs or row.runs.startswith("nothing"), row
    assert ran.exists() == says_it_runs
    ran.unlink(missing_ok=True)
    if row.writes.startswith("nothing"):
        assert files(desk) == before


@pytest.mark.parametrize("verb", ["status", "wait", "top"])
def test_the_first_look_at_a_fleet_runs_what_plan_runs(desk: Desk, verb: str) -> None:
    ran = desk.folder / "ran"
    desk.write(more="    more: {pool: solo, replicas: 1, queues: [q], secretEnv: {KEY: word}}\n")
    secret = f"  secrets: {{word: {{exec: [sh, -c, 'echo secret >> {ran}; echo x']}}}}\n  groups:\n"
    desk.manifest.write_text(desk.manifest.read_text().replace("  groups:\n", secret, 1))
    assert "never applied what plan runs" in TABLE[verb].runs
    desk.fleet(verb, *LINES[verb][0].split()[1:], "fleet.yaml", code=None)
    assert ran.exists()
    assert not desk.state.parent.exists(), "and leaves nothing"
