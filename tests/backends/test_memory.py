"""The fleet in a dictionary keeps the promises of every backend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.backends.base import Backend
from fleet.backends.memory import MemoryBackend
from fleet.core.desired import Desired, Replica
from fleet.core.observed import State
from fleet.core.planning.assignment import assign
from fleet.errors import FleetError, Unreachable
from tests.worlds import FLEET, group


def replicas(count: int = 2, **env: str) -> list[Replica]:
    return list(assign(group("thumbs", *[1] * count, env=env), ()).wanted.values())


def backend(*, stepwise: bool = False) -> MemoryBackend:
    made = MemoryBackend(FLEET, stepwise=stepwise)
    made.prepare(Desired(FLEET))
    return made


def states(world: MemoryBackend) -> dict[str, State]:
    return {name: one.state for name, one in world.observe().replicas.items()}


def test_it_is_a_backend() -> None:
    door: Backend = MemoryBackend(FLEET)

    assert not door.observe().up


def test_a_daemon_that_does_not_run_starts_nothing() -> None:
    with pytest.raises(Unreachable):
        MemoryBackend(FLEET).start(replicas(), secrets={})


def test_starting_twice_ends_where_starting_once_ends() -> None:
    world = backend()
    world.start(replicas(), secrets={"db": "x"})
    before = world.observe()
    world.start(replicas(), secrets={})

    assert world.observe() == before
    assert states(world) == {"thumbs.0": State.READY, "thumbs.1": State.READY}
    assert world.secrets == {"db": "x"}


def test_another_digest_does_not_slip_in_under_a_running_name() -> None:
    world = backend()
    world.start(replicas(), secrets={})

    with pytest.raises(FleetError, match="stop and forget it first"):
        world.start(replicas(A="1"), secrets={})


def test_a_running_replica_is_not_forgotten() -> None:
    world = backend()
    world.start(replicas(), secrets={})

    with pytest.raises(FleetError, match="still runs"):
        world.forget(["thumbs.0"])


def test_stop_forget_and_run_again() -> None:
    world = backend()
    world.start(replicas(), secrets={})
    pid = world.observe().replicas["thumbs.1"].pid
    world.stop(["thumbs.0", "thumbs.1", "nobody.7"])
    world.forget(["thumbs.0", "nobody.7"])
    world.run_again(["thumbs.1", "nobody.7"])

    assert states(world) == {"thumbs.1": State.READY}
    assert world.observe().replicas["thumbs.1"].pid != pid


def test_step_by_step_a_busy_replica_drains_until_its_tasks_end() -> None:
    world = backend(stepwise=True)
    world.start(replicas(), secrets={})
    assert set(states(world).values()) == {State.STARTING}
    world.settle()
    world.work("thumbs.0", 1)
    world.stop(["thumbs.0", "thumbs.1"])
    world.settle()
    assert states(world) == {"thumbs.0": State.DRAINING, "thumbs.1": State.STOPPED}

    world.finish("thumbs.0")
    world.settle()

    assert states(world)["thumbs.0"] is State.STOPPED


def test_a_broken_digest_never_gets_ready() -> None:
    world = backend(stepwise=True)
    world.break_starts(replicas()[0].digest)
    world.start(replicas(), secrets={})
    world.settle()

    assert set(states(world).values()) == {State.STARTING}


def test_what_ran_under_a_killed_daemon_is_left_behind() -> None:
    world = backend()
    world.start(replicas(), secrets={})
    world.kill_daemon()
    seen = world.observe()

    assert (seen.up, dict(seen.replicas)) == (False, {})
    assert [stray.replica for stray in seen.strays] == ["thumbs.0", "thumbs.1"]

    world.reap([stray.pid for stray in seen.strays])

    assert world.observe().strays == ()


def test_the_daemon_of_a_fleet_that_runs_is_not_ended() -> None:
    world = backend()
    world.start(replicas(), secrets={})
    with pytest.raises(FleetError, match="not empty"):
        world.shutdown()
    world.stop(["thumbs.0", "thumbs.1"])

    world.shutdown()

    assert not world.observe().up


def test_a_crash_a_parking_and_a_hand_are_seen() -> None:
    world = backend()
    world.start(replicas(3), secrets={})
    before = world.observe().replicas
    world.crash("thumbs.0")
    world.park("thumbs.1", "exit 1")
    world.stop_by_hand("thumbs.2")
    after = world.observe().replicas

    assert after["thumbs.0"] == replace(before["thumbs.0"], pid=after["thumbs.0"].pid, crashes=1)
    assert after["thumbs.0"].pid != before["thumbs.0"].pid
    assert (after["thumbs.1"].state, after["thumbs.1"].note) == (State.FAILED, "exit 1")
    assert (after["thumbs.2"].state, after["thumbs.2"].pid) == (State.STOPPED, None)


def test_workers_count_what_they_do() -> None:
    world = backend()
    world.start(replicas(), secrets={})
    world.work("thumbs.0", 2)
    world.count("thumbs.0", processed=7, failed=1, busy_seconds=30.0, waiting=3)
    seen = world.observe().replicas["thumbs.0"]
    assert (seen.counts, seen.processed, seen.failed, seen.busy_seconds, seen.reserved) == (True, 7, 1, 32.0, 5)

    world.finish("thumbs.0")

    after = world.observe().replicas["thumbs.0"]
    assert (after.processed, after.busy_seconds, after.reserved) == (9, 32.0, 3)


def test_another_process_begins_to_count_anew_and_no_process_counts_nothing() -> None:
    world = backend()
    world.start(replicas(), secrets={})
    for name in ("thumbs.0", "thumbs.1"):
        world.count(name, processed=7, busy_seconds=30.0, waiting=3)
    world.crash("thumbs.0")
    world.stop(["thumbs.1"])
    crashed, stopped = (world.observe().replicas[name] for name in ("thumbs.0", "thumbs.1"))

    assert (crashed.counts, crashed.processed, crashed.busy_seconds, crashed.reserved) == (True, 0, 0.0, 0)
    assert (stopped.counts, stopped.processed, stopped.busy_seconds, stopped.reserved) == (False, 7, 0.0, 0)


def test_a_program_of_somebody_else_counts_nothing() -> None:
    world = backend()
    world.start([replace(one, spec=replace(one.spec, kind="command")) for one in replicas()], secrets={})

    assert not world.observe().replicas["thumbs.0"].counts


def test_a_replica_can_be_held_and_released() -> None:
    world = backend()
    world.start(replicas(), secrets={})
    world.hold(["thumbs.0"], on=True)
    assert world.observe().replicas["thumbs.0"].held

    world.hold(["thumbs.0"], on=False)

    assert not world.observe().replicas["thumbs.0"].held
    assert world.calls[-1] == ("release", ("thumbs.0",))


def test_a_backend_that_does_not_answer_says_so() -> None:
    world = backend()
    world.reachable = False

    with pytest.raises(Unreachable):
        world.observe()
