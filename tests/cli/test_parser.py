"""Words to calls: guesses for mistakes, exit code 64, and nothing heavy for help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.cli import main, verbs
from fleet.cli.parser import parse
from fleet.cli.verb_list import VERBS
from fleet.errors import UsageError

HEAVY = {"pydantic", "rich", "kombu", "yaml", "psutil", "redis", "celery", "billiard", "gevent", "supervisor", "ruamel"}


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in VERBS)


@pytest.mark.parametrize("words", [["--help"], [], ["help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; from fleet.cli import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in done.stderr.split()}
    assert "argparse" in done.stderr.split()


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: fleet {name}" in capsys.readouterr().out


def test_every_verb_has_one_module_of_its_name() -> None:
    folder = Path(verbs.__file__).parent
    assert {path.stem for path in folder.glob("[!_]*.py")} == set(VERBS)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["aply"], "did you mean 'apply'?"),
        (["statsu", "x.yaml"], "did you mean 'status'?"),
        (["apply", "x.yaml", "--dryrun"], "did you mean '--dry-run'?"),
        (["plan", "x.yaml", "--detailed-exit"], "did you mean '--detailed-exitcode'?"),
        (["--verison"], "did you mean '--version'?"),
        (["--zzz"], "see `fleet --help`"),
        (["apply", "--timeout", "soon"], "see `fleet apply --help`"),
    ],
)
def test_a_mistake_exits_64_with_a_guess(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 64
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"hint: {hint}" in shown.err


def test_flags_and_words_may_be_mixed() -> None:
    args = parse(["plan", "a.yaml", "--prune", "b.yaml", "-o", "json"]).args
    assert args.words == ["a.yaml", "b.yaml"]
    assert args.prune
    assert args.output == "json"


def test_flags_are_not_abbreviated() -> None:
    with pytest.raises(UsageError):
        parse(["apply", "--dry"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_completion_scripts_know_the_verbs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "rollback" in script
    assert "max-destroy" in script


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m fleet schema | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("{")
