"""What a verb runs of a manifest that somebody else wrote, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Desk

RUNS = ("status", "plan", "apply --yes", "explain", "render", "send tasks.nothing", "diff", "doctor")
NOTHING = ("validate", "history", "events", "logs", "health")


def secret_that_touches(desk: Desk) -> Path:
    ran = desk.folder / "ran"
    desk.write(more="    more: {pool: solo, replicas: 1, queues: [q], secretEnv: {KEY: word}}\n")
    text = desk.manifest.read_text().replace(
        "  groups:\n", f"  secrets: {{word: {{exec: [sh, -c, 'touch {ran}; echo x']}}}}\n  groups:\n", 1
    )
    desk.manifest.write_text(text)
    return ran


def app_that_touches(desk: Desk) -> Path:
    ran = desk.folder / "ran"
    (desk.folder / "shop.py").write_text(f"open({str(ran)!r}, 'w').close()\nraise ImportError('no')\n")
    text = desk.manifest.read_text().replace("pool: solo, ", "", 1)
    desk.manifest.write_text(text)
    return ran


CODE = {"secret": secret_that_touches, "app": app_that_touches}


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("line", RUNS)
def test_no_exec_runs_no_code_of_the_manifest(desk: Desk, code: str, line: str) -> None:
    ran = CODE[code](desk)
    said = desk.fleet(*line.split(), "--no-exec", code=None)
    assert not ran.exists()
    assert said.code != 0
    if not line.startswith("send"):
        assert (said.code, "which --no-exec forbids" in said.err) == (9, True), said
    assert not desk.state.parent.exists(), "nothing was made"


@pytest.mark.parametrize("code", CODE)
def test_the_variable_forbids_it_too(desk: Desk, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = CODE[code](desk)
    monkeypatch.setenv("FLEET_NO_EXEC", "1")
    desk.fleet("plan", code=9)
    assert not ran.exists()
    monkeypatch.setenv("FLEET_NO_EXEC", "0")
    desk.fleet("plan", code=None)
    assert ran.exists()


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("line", NOTHING)
def test_these_verbs_run_no_code_and_make_nothing(desk: Desk, code: str, line: str) -> None:
    ran = CODE[code](desk)
    desk.fleet(*line.split(), code=None)
    assert not ran.exists()
    assert not desk.state.parent.exists()


def test_plan_makes_nothing(desk: Desk) -> None:
    desk.fleet("plan")
    desk.fleet("explain")
    assert not desk.state.parent.exists()


def test_an_app_that_is_asked_sees_no_token_of_the_shell(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = desk.folder / "seen"
    (desk.folder / "shop.py").write_text(
        f"import os\nopen({str(seen)!r}, 'w').write(chr(10).join(sorted(os.environ)))\nraise ImportError('no')\n"
    )
    text = desk.manifest.read_text().replace("pool: solo, ", "env: {OF_GROUP: x}, ", 1)
    desk.manifest.write_text(text)
    for name in ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "FLEET_API_TOKEN", "DATABASE_URL"):
        monkeypatch.setenv(name, "hunter2")
    desk.fleet("plan", code=1)
    names = seen.read_text().splitlines()
    assert {"PATH", "OF_GROUP"} <= set(names)
    assert not {"GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "FLEET_API_TOKEN", "DATABASE_URL"} & set(
        names
    )


@pytest.mark.parametrize(
    "text",
    [
        "replicas: '${env:WORD}'",
        "replicas: 1, pool: '${env:WORD}'",
        "replicas: 1, pool: solo, queues: ['${env:WORD} x']",
        "replicas: 1, drain: {timeout: 'a${env:WORD}'}",
    ],
)
@pytest.mark.parametrize("word", ["hunter2", 'hun\'ter2 "x"', "hunter2" * 20])
def test_no_problem_shows_a_value_of_the_environment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, text: str, word: str
) -> None:
    monkeypatch.setenv("WORD", word)
    desk.write(more=f"    more: {{{text}}}\n")
    said = desk.fleet("validate", code=None)
    assert "hunter2" not in said.out + said.err
    assert "hun'ter2" not in said.out + said.err
