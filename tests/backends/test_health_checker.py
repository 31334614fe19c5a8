"""The program that makes the health checks of a fleet: real checks of processes that this test stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.backends.supervisor.health_checker import HealthChecks
from fleet.backends.supervisor.replica_files import Folder
from fleet.core.desired import Replica
from fleet.core.observed import ObservedReplica, Trouble
from fleet.core.plan import Action
from fleet.core.planning.planner import plan
from fleet.core.spec import HealthCheckSpec, WorkerSpec, digest
from fleet.replica.health_result import HealthResult, read_result, result_file
from fleet.replica.record import Record
from fleet.state.paths import Places
from tests.backends.worlds import World, desired_of, replicas_of, spec_of
from tests.conftest import eventually


@pytest.fixture
def places(short_tmp: Path) -> Places:
    places = Places.of(short_tmp, "shop")
    Folder(places).make()
    return places


@pytest.fixture
def checks(places: Places) -> Iterator[HealthChecks]:
    made = HealthChecks(places)
    yield made
    made.end()


def checked(*command: str, interval: float = 0.05, timeout: float = 60.0) -> WorkerSpec:
    check = HealthCheckSpec(command, interval_seconds=interval, timeout_seconds=timeout)
    return replace(spec_of(workdir="/"), health_check=check)


def write(places: Places, spec: WorkerSpec, index: int, *, state: str = "ready") -> Replica:
    """A replica whose process is this one."""
    replica = Replica(spec.group, index, spec, digest(spec))
    Folder(places).write({replica: "; Written by fleet"}, secrets={})
    with closing(Record(places.record_file(replica.name), digest=replica.digest, slots=0, foreign=True)) as record:
        record.become(state)
    return replica


def result(places: Places, replica: Replica) -> HealthResult:
    return read_result(result_file(places.health, replica.name), pid=os.getpid())


def test_each_replica_is_checked_by_itself_however_the_others_hang(checks: HealthChecks, places: Places) -> None:
    hung = [write(places, checked("sleep", "1000"), index) for index in range(20)]
    well, sick = write(places, checked("true"), 20), write(places, checked("false"), 21)
    checks.look()
    assert eventually(lambda: result(places, well).well_since)
    assert eventually(lambda: result(places, sick).failures >= 2)
    assert result(places, sick).reason == "exit code 1"
    assert [result(places, one) for one in hung] == [HealthResult(os.getpid())] * 20


def test_what_changes_in_a_check_is_followed_and_what_it_told_stays_for_its_process(
    checks: HealthChecks, places: Places
) -> None:
    replica = write(places, checked("true"), 0)
    checks.look()
    since = eventually(lambda: result(places, replica).well_since)
    spec = checked("sh", "-c", "echo sick; exit 1")
    Folder(places).write({Replica("thumbs", 0, spec, digest(spec)): "; Written by fleet"}, secrets={})
    with closing(Record(places.record_file(replica.name), digest=replica.digest, slots=0, foreign=True)) as record:
        record.become("ready")
    checks.look()
    assert eventually(lambda: result(places, replica).failures)
    assert (result(places, replica).reason, result(places, replica).well_since) == ("exit code 1: sick", since)


@pytest.mark.parametrize("gone", ["the check", "the replica"])
def test_a_check_ends_with_what_it_checks(gone: str, checks: HealthChecks, places: Places) -> None:
    replica = write(places, checked("true"), 0)
    checks.look()
    assert eventually(lambda: result(places, replica).well_since)
    if gone == "the check":
        write(places, replace(checked("true"), health_check=HealthCheckSpec()), 0)
    else:
        places.spec_file(replica.name).unlink()
    checks.look()
    assert eventually(lambda: not result_file(places.health, replica.name).exists())


def test_a_replica_that_is_not_up_yet_is_not_checked(checks: HealthChecks, places: Places) -> None:
    young, ready = write(places, checked("true"), 0, state="starting"), write(places, checked("true"), 1)
    checks.look()
    assert eventually(lambda: result(places, ready).well_since)
    assert result(places, young) == HealthResult(os.getpid())


@pytest.mark.system
def test_the_backend_sees_what_the_checks_tell(world: World, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    check = HealthCheckSpec(("test", "!", "-e", str(sick)), interval_seconds=0.05, failures=2)
    spec = replace(spec_of(), health_check=check)
    world.backend.prepare(desired_of(spec))
    world.backend.start(replicas_of(spec, 1), secrets={})
    assert eventually(lambda: world.backend.observe().replicas["thumbs.0"].note == "no health check has passed yet")
    checks = HealthChecks(world.places)
    try:
        checks.look()
        world.until_ready(["thumbs.0"])
        sick.touch()
        seen = eventually(lambda: (one := world.backend.observe().replicas["thumbs.0"]).trouble and one)
        assert isinstance(seen, ObservedReplica)
        assert (seen.trouble, seen.is_ready) == (Trouble.UNHEALTHY, False)
        steps = plan(desired_of(spec), world.backend.observe()).changes
        assert [(step.action, step.replica) for step in steps] == [(Action.RESTART, "thumbs.0")]
        assert "health checks failed: exit code 1" in steps[0].reason
        sick.unlink()
        world.until_ready(["thumbs.0"])
    finally:
        checks.end()
