"""What a terminal shows of an apply while it goes on."""

from __future__ import annotations

import io

import pytest

from fleet.cli.output import Output
from fleet.cli.progress import Progress, Waves
from fleet.core.plan import Action, Plan, Step
from fleet.operate.apply.events import Event


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


def test_one_wave_needs_no_second_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown((0, 0), [(0, "started"), (0, "done"), (1, "started")], monkeypatch)
    assert "wave" not in text
    assert "restart thumbs.1" in text.rsplit("all steps", 1)[1]


def test_a_failure_leaves_a_line_and_ends_its_part_of_the_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown((0, 1), [(0, "started"), (0, "failed"), (1, "started")], monkeypatch)
    assert "✗" in text
    assert "wave 2 of 2" in text
