"""Every command of the tutorials, in its order, by a shell in a folder with the examples; and what they print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from docs.pages import ROOT
from tests.backends.kubernetes.stand_in import StandIn
from tests.conftest import eventually

PAGES = ROOT / "docs" / "tutorials"
LIFTED = ("examples", "manifests")
"""What the pages use of the clone. They run in a copy, so that nothing they edit is edited here."""

BROKER = "redis://localhost:6379/0"
"""What pages call the reader's own Redis."""

NAMES_A_FILE = re.compile(r"`([\w./-]+)`[^`]*:$")
VARYING = re.compile(
    r"…|\b\d{4}-\d\d-\d\dT[\d:.]+Z|\b(?=[0-9a-f]*[0-9])[0-9a-f]{7,64}\b|\b\d+(?:\.\d+)?(?:ms|[smh]|[KMG]i)\b|\b\d+\.\d+|\b\d{4,}\b"
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Written:
    """A file that the page tells the reader to write."""

    name: str
    text: str


@dataclass(frozen=True)
class Typed:
    """A command, and the lines of its output that the page shows."""

    command: str
    shown: tuple[str, ...]


def pieces(page: str) -> Iterator[Written | Typed]:
    """What the reader does, in order: a fence after a line that names a file is that file; a console has commands."""
    before, fence, inside = "", "", list[str]()
    for line in page.splitlines():
        if not fence and line.startswith("```"):
            fence, inside = line, []
        elif line == "```":
            if fence == "```console":
                yield from commands(inside)
            elif named := NAMES_A_FILE.search(before):
                yield Written(named[1], "\n".join(inside))
            fence = ""
        elif fence:
            inside.append(line)
        elif line:
            before = line


def commands(lines: list[str]) -> Iterator[Typed]:
    for part in re.split(r"^\$ ", "\n".join(lines), flags=re.M)[1:]:
        command, *shown = part.splitlines()
        yield Typed(command, tuple(line for line in shown if line.strip() not in {"", "…"}))


def pattern(line: str) -> re.Pattern[str]:
    """A line of a page as what may stand there: other times, sizes, ids, and anything for an ellipsis."""
    line, parts, end = line.strip(), list[str](), 0
    for found in VARYING.finditer(line):
        parts += [literal(line[end : found.start()]), ".*" if found[0] == "…" else r"[\w.:-]+"]
        end = found.end()
    return re.compile("".join([*parts, literal(line[end:])]))


def literal(text: str) -> str:
    return r"\s+".join(map(re.escape, re.split(r"\s+", text)))


def shell(folder: Path, env: dict[str, str], done: list[Written | Typed]) -> list[tuple[Typed, int, str]]:
    """All pieces of a page in one shell, so that `cd` lasts: each command, its exit code, what it printed."""
    mark = "=== the next command ==="
    lines = ["last=0"]
    for piece in done:
        if isinstance(piece, Written):
            lines += [f"cat > {piece.name} <<'END OF FILE'", piece.text, "END OF FILE"]
        else:
            lines += [f"(exit $last); {piece.command}", "last=$?", f'printf "\\n{mark}%s\\n" $last']
    told = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout
    parts = re.split(rf"^{re.escape(mark)}(\d+)\n", told, flags=re.M)
    typed = [piece for piece in done if isinstance(piece, Typed)]
    return [(piece, int(code), out) for piece, out, code in zip(typed, parts[::2], parts[1::2], strict=False)]


@pytest.fixture
def folder(short_tmp: Path) -> Iterator[Path]:
    """The clone's part that pages use; whatever happens, no fleet is left."""
    for name in LIFTED:
        shutil.copytree(ROOT / name, short_tmp / name, ignore=shutil.ignore_patterns("__pycache__"))
    yield short_tmp
    for fleet in (short_tmp / "home").glob("[a-z]*"):
        down = [sys.executable, "-m", "fleet", "down", "--fleet", fleet.name, "--yes", "--adopt"]
        subprocess.run(down, env=surroundings(short_tmp), capture_output=True, check=False)
    assert eventually(lambda: not left_running(short_tmp))


def left_running(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLEET_HOME") == str(folder / "home"):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def surroundings(folder: Path) -> dict[str, str]:
    """The reader's shell, with nothing of this machine's fleets in it."""
    who = {f"GIT_{role}_{what}": "ana@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "GIT_", "KUBE"))},
        **who,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "FLEET_HOME": str(folder / "home"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The variables by which a shell finds a cluster that is none."""
    with StandIn() as api:
        yield {"KUBECONFIG": str(api.write_kubeconfig(folder / "kubeconfig"))}


@pytest.mark.parametrize("name", [path.name for path in sorted(PAGES.glob("[0-9]*.md"))])
def test_the_page_can_be_followed(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    text = (PAGES / name).read_text()
    env = surroundings(folder)
    if BROKER in text:
        text = text.replace(BROKER, request.getfixturevalue("redis_url"))
    if "--target kubernetes" in text:
        env |= request.getfixturevalue("cluster")
    todo = list(pieces(text))
    assert sum(isinstance(piece, Typed) for piece in todo) == text.count("\n$ ")

    done = shell(folder, env, todo)

    everything = "\n".join(f"$ {piece.command}\n{out}[exit {code}]" for piece, code, out in done)
    assert len(done) == text.count("\n$ "), everything
    checked = [piece for piece in todo if isinstance(piece, Typed)]
    for (piece, code, out), following in zip(done, [*checked[1:], None], strict=True):
        expects_failure = following is not None and following.command == "echo $?"
        assert (code != 0) == expects_failure, f"{piece.command} ended with {code}\n{everything}"
        printed = [re.sub(r"\s+", " ", line).strip() for line in out.splitlines()]
        for line in piece.shown:
            assert any(map(pattern(line).fullmatch, printed)), f"not printed: {line}\n{everything}"
    assert left_running(folder) == [], everything


def test_a_line_of_a_page_is_compared_but_for_what_varies() -> None:
    line = pattern("fleet shop, revision 2: done, 8 steps in 1.4 s")
    assert line.fullmatch("fleet shop, revision 2: done, 8 steps in 11.2 s")
    assert not line.fullmatch("fleet shop, revision 3: done, 8 steps in 1.4 s")
    assert pattern("quick.0   26373  ready  fd7cfa3a  …").fullmatch("quick.0 1234567 ready 0bc34989 0/1")
    assert not pattern("quick.0   26373  ready  fd7cfa3a  …").fullmatch("quick.0 1234567 stopped 0bc34989 0/1")
