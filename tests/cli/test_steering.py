"""What is refused of verbs that steer: a replica that is not there, a fleet that is down."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Desk

STEERING = [("drain",), ("restart",), ("resume",)]


@pytest.mark.parametrize("words", STEERING)
@pytest.mark.parametrize("name", ["thumbs.99", "thumbs.00", "thumbs.03", "reports.1"])
def test_a_mistyped_replica_is_refused_and_nothing_is_touched(desk: Desk, words: tuple[str, ...], name: str) -> None:
    desk.fleet("apply")
    calls, pids = len(desk.world.calls), desk.pids()
    said = desk.fleet(*words, name, code=64)
    assert f"there is no replica '{name}'" in said.err
    assert f"{name.partition('.')[0]} has " in said.err
    assert (len(desk.world.calls), desk.pids()) == (calls, pids)
    assert not (desk.state / "overrides.yaml").exists()


@pytest.mark.parametrize("words", STEERING)
def test_one_that_is_wanted_and_not_there_may_be_named(desk: Desk, words: tuple[str, ...]) -> None:
    desk.fleet("apply")
    desk.world.stop_by_hand("thumbs.1")
    desk.world.forget(["thumbs.1"])
    desk.fleet(*words, "thumbs.1")


def test_an_exception_of_a_replica_that_is_gone_can_be_ended(desk: Desk) -> None:
    desk.fleet("apply")
    desk.fleet("drain", "thumbs.2")
    desk.fleet("scale", "thumbs=1")
    desk.fleet("resume", "thumbs.2")
    assert not (desk.state / "overrides.yaml").exists()


@pytest.mark.parametrize(
    "words",
    [
        *[(*words, "thumbs") for words in STEERING],
        ("pause", "thumbs"),
        ("scale", "thumbs=5", "--live"),
        ("scale", "thumbs=5"),
        ("restart", "--all"),
        ("resume", "thumbs.0"),
    ],
)
@pytest.mark.parametrize("how", ["taken down", "lost its supervisor"])
def test_a_fleet_that_is_down_is_not_steered(desk: Desk, words: tuple[str, ...], how: str) -> None:
    desk.fleet("apply")
    if how == "taken down":
        desk.fleet("down", "--yes")
    else:
        desk.world.kill_daemon()
    text, calls = desk.manifest.read_text(), len(desk.world.calls)
    said = desk.fleet(*words, code=9)
    assert "fleet shop is down" in said.err
    assert "`fleet apply` starts it" in said.err
    assert (desk.manifest.read_text(), len(desk.world.calls)) == (text, calls)
