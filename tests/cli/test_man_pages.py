"""Manual pages: one per verb, with every flag, in roff that no formatter complains about."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from fleet.cli.man_pages import main, pages
from fleet.cli.parser import parser_of
from fleet.cli.verb_list import EXIT_CODES, VERBS

FORMATTERS = {
    "man": ["man", "--warnings", "--no-justification", "-E", "UTF-8", "-l"],
    "groff": ["groff", "-ww", "-man", "-Tutf8", "-z"],
    "mandoc": ["mandoc", "-T", "lint", "-W", "warning"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("man")
    assert main([str(made)]) == 0
    return made / "man1"


def test_every_verb_has_a_page(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"fleet.1", *(f"fleet-{name}.1" for name in VERBS)}
    assert all(rf"fleet\-{name}" in (folder / "fleet.1").read_text() for name in VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_a_page_has_all_that_help_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    text = pages()[f"fleet-{name}.1"]
    plain = text.replace(r"\-", "-")
    assert rf'.TH FLEET\-{name.upper()} 1 "1970-01-02" "fleet' in text
    for action in parser_of(VERBS[name])._actions:
        if action.help is not argparse.SUPPRESS:
            assert all(rf"\fB{flag}\fR" in plain for flag in action.option_strings)
    assert all(f".B {code.split()[0]}\n" in text for code in EXIT_CODES)


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_no_formatter_complains(formatter: str, folder: Path) -> None:
    if shutil.which(formatter) is None:
        pytest.skip(f"{formatter} is not installed")
    files = [str(path) for path in sorted(folder.iterdir())]
    done = subprocess.run([*FORMATTERS[formatter], *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert done.stderr == ""
    if formatter == "mandoc":
        assert done.stdout == ""


def test_what_is_no_text_is_escaped(folder: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    told = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-cbou", str(folder / "fleet-sync.1"), str(folder / "fleet-status.1")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "run: look once, do what is to be done, and end" in told
    assert "groups and replicas, what they do" in told
    assert "--once" in told
    assert "\\" not in told
