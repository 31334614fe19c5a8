"""fleet simulate: what it prints, draws and refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fleet.cli.verbs import simulate as simulating
from fleet.core.simulation.policies import POLICIES
from fleet.core.simulation.workloads import WORKLOADS
from tests.cli.conftest import Desk

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: shop}
spec:
  app: shop:app
  broker: {url: "redis://localhost/0"}
  concurrency: 20
  groups:
    thumbs: {pool: solo, autoscale: {weight: 1, max: 16, targetWait: 5s, expectedRuntime: 1s}, queues: [thumbs, small]}
    mail:
      pool: {type: threads, concurrency: 2}
      autoscale: {weight: 2, targetWait: 2s, expectedRuntime: 400ms}
      queues: [mail]
    reports: {pool: {type: prefork, concurrency: 4}, replicas: 1, queues: [reports]}
    clock: {command: [sleep, "1000"], replicas: 1}
"""
BRIEF = ("--duration", "5m")


@pytest.fixture
def stage(desk: Desk) -> Desk:
    desk.manifest.write_text(MANIFEST)
    return desk


def test_it_tells_per_group_what_became_of_the_tasks(stage: Desk) -> None:
    said = stage.fleet("simulate", "fleet.yaml", *BRIEF)
    lines = said.out.splitlines()

    assert lines[0] == "shop, diurnal for 5m, policy fleet"
    assert lines[2].split() == list(simulating.HEAD)
    assert [line.split()[0] for line in lines[3:6]] == ["mail", "reports", "thumbs"]
    assert lines[-2].endswith(" late")
    assert "never more than 20 of 20" in lines[-1]
    assert "\033[" not in said.out
    assert (
        said.err == "note: no expectedRuntime, so 1s per task is assumed: reports\n"
        "note: no targetWait, so 5s is assumed: reports\n"
    )


def test_the_document_holds_the_same_figures(stage: Desk) -> None:
    said = stage.fleet("simulate", "fleet.yaml", *BRIEF, "--workload", "steady", "-o", "json")

    found = said.json
    assert (found["fleet"], found["policy"], found["workload"], found["seed"]) == ("shop", "fleet", "steady", 1)
    assert (found["duration"], found["budget"], found["totals"]["mostSlots"]) == (300.0, 20, 20)
    assert found["totals"]["tasks"] == sum(group["tasks"] for group in found["groups"].values())
    assert found["groups"]["reports"]["slots"] == {"mean": 4.0, "most": 4}
    assert found["groups"]["reports"]["moves"] == 0
    assert found["groups"]["mail"]["pool"] == "threads"
    assert said.err == ""


def test_the_same_seed_gives_the_same_run_and_another_one_another(stage: Desk) -> None:
    first, again, other = (
        stage.fleet("simulate", "fleet.yaml", *BRIEF, "--seed", seed, "-o", "json").json for seed in ("1", "1", "2")
    )

    assert first == again
    assert first["totals"] != other["totals"]


def test_nothing_is_touched(stage: Desk) -> None:
    stage.fleet("simulate", "fleet.yaml", *BRIEF)

    assert not (stage.folder / "home").exists()


def test_another_policy_decides_when_asked(stage: Desk) -> None:
    moved = stage.fleet("simulate", "fleet.yaml", *BRIEF, "-o", "json").json
    static = stage.fleet("simulate", "fleet.yaml", *BRIEF, "--policy", "static", "-o", "json").json

    assert static["totals"]["moves"] == 0 < moved["totals"]["moves"]


def test_a_balance_that_is_not_dynamic_does_not_move(stage: Desk) -> None:
    stage.manifest.write_text(MANIFEST.replace("  groups:", "  balance: {mode: static}\n  groups:"))

    found = stage.fleet("simulate", "fleet.yaml", *BRIEF, "-o", "json").json

    assert (found["policy"], found["totals"]["moves"]) == ("static", 0)


def test_a_fleet_that_has_nothing_to_move_is_played_as_it_stands(desk: Desk) -> None:
    said = desk.fleet("simulate", "fleet.yaml", *BRIEF)

    assert "note: no group autoscales: nothing moves" in said.err
    assert "; 0 moves" in said.out


def test_what_only_the_app_could_tell_is_said_to_be_a_guess(stage: Desk) -> None:
    stage.manifest.write_text(MANIFEST.replace("{type: threads, concurrency: 2}", "threads"))

    assert "note: apps are not loaded, so what" in stage.fleet("simulate", "fleet.yaml", *BRIEF).err


def test_more_tasks_than_can_be_played_are_refused_before_they_are_made(
    stage: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_MAX_REPLICAS", "100000")
    stage.manifest.write_text(MANIFEST.replace("concurrency: 20", "concurrency: 100000"))

    refused = stage.fleet("simulate", "fleet.yaml", code=64)

    assert "3,000,000 can be played" in refused.err
    assert "hint: --duration " in refused.err


def test_arrivals_of_a_file_go_to_whoever_takes_from_their_queue(stage: Desk) -> None:
    stage.folder.joinpath("load.csv").write_text("time,queue,runtime\n0,small,3\n1,thumbs,2\n2,mail,\n9,reports,1\n")

    found = stage.fleet("simulate", "fleet.yaml", "--arrivals", "load.csv", "-o", "json").json

    assert {name: group["tasks"] for name, group in found["groups"].items()} == {"mail": 1, "reports": 1, "thumbs": 2}
    assert (found["workload"], found["duration"]) == ("load.csv", 70.0)


@pytest.mark.parametrize("name", ["run.png", "run.svg"])
def test_a_picture_is_drawn(stage: Desk, name: str) -> None:
    said = stage.fleet("simulate", "fleet.yaml", *BRIEF, "--picture", name)

    drawn = stage.folder.joinpath(name).read_bytes()
    assert drawn.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert f"drew {name}" in said.err


def test_without_matplotlib_it_says_what_to_install(stage: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    said = stage.fleet("simulate", "fleet.yaml", *BRIEF, "--picture", "run.png", code=1)

    assert "a picture needs matplotlib" in said.err
    assert "pip install 'workerfleet[pictures]'" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workload", "calm"], "invalid choice: 'calm'"),
        (["--policy", "hope"], "invalid choice: 'hope'"),
        (["--workload", "spike", "--arrivals", "load.csv"], "not allowed with"),
        (["--duration", "0s"], "--duration 0s is out of range"),
        (["--duration", "30d"], "--duration 720h is out of range"),
        (["--picture", "run.gif"], "run.gif is not a kind of picture that fleet can draw"),
        (["--picture", "nowhere/run.png"], "there is no folder"),
        (["--arrivals", "load.csv"], "load.csv:3: no group takes from queue 'thumb'"),
        (["--arrivals", "bytes.csv"], "bytes.csv is not UTF-8 text"),
        (["thumbs"], "'thumbs' is not a manifest"),
    ],
)
def test_what_makes_no_sense_is_a_mistake_of_usage(stage: Desk, words: list[str], said: str) -> None:
    stage.folder.joinpath("load.csv").write_text("time,queue\n0,thumbs\n1,thumb\n")
    stage.folder.joinpath("bytes.csv").write_bytes(b"\xff\xfe\x00")

    refused = stage.fleet("simulate", "fleet.yaml", *words, code=64)

    assert said in refused.err
    assert refused.out == ""


def test_a_manifest_that_is_refused_exits_as_everywhere(stage: Desk) -> None:
    stage.manifest.write_text(MANIFEST.replace("pool: solo", "pool: slow"))

    assert "unknown pool 'slow'" in stage.fleet("simulate", "fleet.yaml", code=3).err


def test_a_budget_that_does_not_add_up_exits_with_the_sums(stage: Desk) -> None:
    stage.manifest.write_text(MANIFEST.replace("concurrency: 20", "concurrency: 5"))
    assert "the groups need at least 6 slots" in stage.fleet("simulate", "fleet.yaml", code=3).err

    stage.manifest.write_text(MANIFEST.replace("  groups:", "  budgets: {processes: 8}\n  groups:"))
    assert "minimums need 2 processes and 1 are there" in stage.fleet("simulate", "fleet.yaml", code=9).err


def test_the_flags_know_every_workload_and_policy() -> None:
    assert tuple(WORKLOADS) == simulating.WORKLOADS
    assert tuple(POLICIES) == simulating.POLICIES


def test_the_fleet_of_the_measurements_can_be_played(desk: Desk) -> None:
    manifest = Path(__file__).parents[2] / "bench" / "balance.yaml"

    assert desk.fleet("simulate", str(manifest), "--duration", "1m", "-o", "json").json["budget"] == 64
