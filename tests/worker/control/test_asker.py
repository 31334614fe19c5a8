"""One replica of a fleet on a machine asks workers elsewhere; who starts later need not, while it lives and listens."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.worker.control.asker import Asker

HOLDS = """
import math, sys
from pathlib import Path
from fleet.worker.control.asker import Asker
one = Asker(Path(sys.argv[1]), broker="redis://here", namespace="celery")
with one.turn(until=math.inf, meanwhile=lambda: None) as asks:
    print(asks, flush=True)
    if sys.argv[2] == "asking":
        sys.stdin.readline()
print("asked", flush=True)
sys.stdin.readline()
"""


class Another:
    """Another replica: it asks until it is told to go on, and then lives until it is told to end."""

    def __init__(self, folder: Path, stage: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(folder), stage], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.asks = self._read() == "True"
        if stage != "asking":
            assert self._read() == "asked"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._read() == "asked"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def another(tmp_path: Path) -> Callable[[str], Another]:
    return lambda stage: Another(tmp_path, stage)


def asker(folder: Path | None, *, broker: str = "redis://here", namespace: str = "celery") -> Asker:
    return Asker(folder, broker=broker, namespace=namespace)


def asks(one: Asker, *, until: float = math.inf) -> bool:
    with one.turn(until=until, meanwhile=lambda: None) as found:
        return found


def test_the_first_asks_and_the_others_do_not_while_it_lives(another: Callable[[str], Another], tmp_path: Path) -> None:
    first = another("asked")
    try:
        assert first.asks
        assert [asks(asker(tmp_path)) for _ in range(3)] == [False] * 3
    finally:
        first.kill()
    assert asks(asker(tmp_path))
    assert not asks(asker(tmp_path)), "this process is the asker now"


def test_another_broker_or_namespace_is_asked_as_well(tmp_path: Path) -> None:
    assert asks(asker(tmp_path))
    assert asks(asker(tmp_path, broker="redis://there"))
    assert asks(asker(tmp_path, namespace="shop"))


def test_who_does_not_listen_any_more_is_the_asker_no_longer(tmp_path: Path) -> None:
    one = asker(tmp_path)
    assert asks(one)
    one.leave()
    assert asks(asker(tmp_path))


def test_one_that_is_not_the_asker_leaves_the_asker_alone(another: Callable[[str], Another], tmp_path: Path) -> None:
    first = another("asked")
    try:
        asker(tmp_path).leave()
        assert not asks(asker(tmp_path))
    finally:
        first.kill()


def test_who_comes_meanwhile_waits_for_the_answers(another: Callable[[str], Another], tmp_path: Path) -> None:
    first = another("asking")
    try:
        assert asks(asker(tmp_path), until=time.monotonic()), "nobody waits for longer than it wants to"
        first.go_on()
        assert not asks(asker(tmp_path))
    finally:
        first.kill()


def test_who_waits_can_answer_the_asker(another: Callable[[str], Another], tmp_path: Path) -> None:
    first = another("asking")
    answers: list[None] = []

    def answer() -> None:
        answers.append(None)
        if len(answers) == 3:
            first.go_on()

    try:
        with asker(tmp_path).turn(until=math.inf, meanwhile=answer) as found:
            assert not found
        assert len(answers) >= 3
    finally:
        first.kill()


def test_who_is_killed_while_it_asks_keeps_nobody_from_asking(
    another: Callable[[str], Another], tmp_path: Path
) -> None:
    another("asking").kill()
    assert asks(asker(tmp_path))


def test_an_error_leaves_no_asker(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), asker(tmp_path).turn(until=math.inf, meanwhile=lambda: None):
        raise ConnectionError
    assert asks(asker(tmp_path))


@pytest.mark.parametrize("text", [b"", b"nonsense", b"1", b"0 0", b"-1 5", b"99999999999 1", b"\xff" * 100])
def test_a_file_that_says_nothing_names_nobody(text: bytes, tmp_path: Path) -> None:
    assert asks(asker(tmp_path))
    [file] = tmp_path.iterdir()
    file.write_bytes(text)
    assert asks(asker(tmp_path))


def test_a_pid_that_the_kernel_used_again_is_another_process(tmp_path: Path) -> None:
    assert asks(asker(tmp_path))
    [file] = tmp_path.iterdir()
    file.write_text(f"{os.getpid()} 1")
    assert asks(asker(tmp_path))


@pytest.mark.parametrize("folder", ["missing", None])
def test_without_a_file_each_asks_for_itself(folder: str | None, tmp_path: Path) -> None:
    one = asker(None if folder is None else tmp_path / folder)
    assert asks(one)
    assert asks(one)
    one.leave()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    assert asks(asker(tmp_path))
    [file] = tmp_path.iterdir()
    file.unlink()
    (tmp_path / "elsewhere").write_text("kept")
    file.symlink_to(tmp_path / "elsewhere")
    assert asks(asker(tmp_path))
    assert (tmp_path / "elsewhere").read_text() == "kept"
