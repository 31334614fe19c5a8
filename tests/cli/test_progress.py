"""What a terminal shows of an apply while it goes on."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.cli.output import Output
from fleet.cli.progress import Progress, Waves, share
from fleet.cli.sync_progress import SyncProgress
from fleet.core.plan import Action, Plan, Step
from fleet.operate.apply.events import Event
from fleet.operate.sync.watcher import NOBODY


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(*waves: int) -> tuple[Step, ...]:
    return tuple(Step(Action.RESTART, f"thumbs.{number}", "asked", wave=wave) for number, wave in enumerate(waves))


def test_the_wave_that_goes_on_is_the_first_with_something_left() -> None:
    made = steps(0, 0, 3, 7)
    waves = Waves(made)
    seen = [waves.current]
    for step in made:
        waves.end(step)
        seen.append(waves.current)
    assert waves.total == 3
    assert seen == [(1, 0, 2), (1, 1, 2), (2, 0, 1), (3, 0, 1), (3, 1, 1)]
    assert Waves(()).current == (0, 0, 0)


def shown(waves: tuple[int, ...], phases: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    made, terminal = steps(*waves), Terminal()
    with Progress(Output(stderr=terminal), Plan("shop", made)) as progress:
        progress.on_event([Event("planned", step, "", 0.0) for step in made])
        for number, phase in phases:
            progress.on_event([Event(phase, made[number], "why", 1.0)])
    return terminal.getvalue()


def test_waves_have_a_bar_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown((0, 1), [(0, "started"), (0, "done"), (1, "started")], monkeypatch)
    last = text.rsplit("all steps", 1)[1]
    assert "1/2" in last
    assert "wave 2 of 2" in last
    assert "0/1" in last
    assert "restart thumbs.1" in last
    assert "left" in last


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_counts_and_times_are_whole_however_much_is_going(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    made = [Step(Action.RESTART, f"reports-of-the-night.{n}", "asked", wave=n // 50) for n in range(200)]
    terminal = Terminal()
    with Progress(Output(stderr=terminal), Plan("shop", tuple(made))) as progress:
        progress.on_event([Event("planned", step, "", 0.0) for step in made])
        progress.on_event([Event("started", step, "", 0.0) for step in made[:150]])
        progress.on_event([Event("done", step, "", 1.0) for step in made[:120]])
    frame = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue().rsplit("all steps", 1)[1])
    whole, part = (line.rstrip() for line in frame.splitlines()[:2])
    assert re.search(r"━ 120/200 \d:\d\d:\d\d left \S+$", whole), whole
    assert re.search(r"wave 3 of 4 [━╺╸]+ +20/50 +\d:\d\d:\d\d left \S+ +restart rep", part), part
    assert len(part) <= columns


def test_one_wave_needs_no_second_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown((0, 0), [(0, "started"), (0, "done"), (1, "started")], monkeypatch)
    assert "wave" not in text
    assert "restart thumbs.1" in text.rsplit("all steps", 1)[1]


def test_a_failure_leaves_a_line_and_ends_its_part_of_the_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown((0, 1), [(0, "started"), (0, "failed"), (1, "started")], monkeypatch)
    assert "✗" in text
    assert "wave 2 of 2" in text


# --- a source that is followed


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def test_each_loop_shows_its_stage_and_a_change_its_steps(terminal: Terminal) -> None:
    made = steps(0, 1)
    with SyncProgress(Output(stderr=terminal)) as progress:
        watcher = progress.watcher
        assert watcher.on_event is not None
        watcher.on_stage("repository", "fetching branch main")
        watcher.on_stage("fleet", "applying abc")
        watcher.on_event([Event("planned", step, "", 0.0) for step in made])
        watcher.on_event([Event("started", made[0], "", 0.0)])
        watcher.on_event([Event("done", made[0], "", 1.0)])
        frame = terminal.getvalue().rsplit("fetching branch main", 1)[1]
        assert "applying abc" in frame
        assert "1/2" in frame
        assert "wave 2 of 2" in frame
        watcher.on_stage("repository", "")
        watcher.on_stage("repository", "verifying abc")
        assert "all steps" in terminal.getvalue().rsplit("verifying abc", 1)[1]
        watcher.on_stage("fleet", "")
        watcher.on_stage("repository", "reading abc")
        assert "all steps" not in terminal.getvalue().rsplit("reading abc", 1)[1], "the change is over"


def test_lines_of_the_log_stay_above_and_come_also_while_nothing_is_shown(terminal: Terminal) -> None:
    with SyncProgress(Output(stderr=terminal)) as progress:
        progress.say("before [all]")
        progress.watcher.on_stage("fleet", "planning abc")
        progress.say("meanwhile [all]")
        assert "planning abc" in terminal.getvalue().rsplit("meanwhile [all]\n", 1)[1]
        progress.watcher.on_stage("fleet", "")
        assert "\x1b[2K" in terminal.getvalue().rsplit("planning abc", 1)[1], "what was shown is erased"
        progress.say("after [all]")
    assert terminal.getvalue().startswith("before [all]\n")
    assert terminal.getvalue().endswith("after [all]\n")


def test_in_a_pipe_there_are_the_lines_alone() -> None:
    pipe = io.StringIO()
    with SyncProgress(Output(stderr=pipe)) as progress:
        assert progress.watcher is NOBODY
        progress.say("a line")
    assert pipe.getvalue() == "a line\n"


# --- work that knows itself how much it is


def test_a_share_is_drawn_on_a_terminal_and_nothing_in_a_pipe(terminal: Terminal) -> None:
    with share(Output(stderr=terminal), "reading files") as tell:
        assert tell is not None
        tell(30, 60)
    assert "reading files" in terminal.getvalue()
    assert "50%" in terminal.getvalue()
    with share(Output(stderr=io.StringIO()), "reading files") as tell:
        assert tell is None


def test_init_of_a_project_shows_both_parts_on_a_terminal(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        (tmp_path / f"app{number}.conf").write_text(f"[program:mail{number}]\ncommand=celery -A shop worker -c 2\n")
    for stream in (terminal, io.StringIO()):
        with redirect_stderr(stream):
            assert main(["init", "deploy", "--from", "auto", ".", "--force", "--name", "shop"]) == 0
        shows = stream is terminal
        assert ("looking for files" in stream.getvalue()) is shows
        assert ("reading files" in stream.getvalue()) is shows
        assert "took app2.conf (supervisor)" in stream.getvalue()
