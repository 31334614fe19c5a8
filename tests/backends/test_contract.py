"""What every backend promises, over every backend there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleet.backends.base import Backend
from fleet.backends.memory import MemoryBackend
from fleet.core.desired import Replica
from fleet.core.observed import Observed, State
from fleet.core.spec import RestartPolicy
from fleet.errors import FleetError
from tests.backends.worlds import World, desired_of, drains_until, replicas_of, spec_of
from tests.conftest import eventually

SPEC = spec_of()
OTHER = spec_of(env=(("VERSION", "2"),))


@dataclass
class Site:
    """A backend under test."""

    backend: Backend

    def until(self, check: Callable[[Observed], bool]) -> Observed:
        """Observe until it looks like this."""

        def look() -> Observed | None:
            seen = self.backend.observe()
            assert check(seen), seen
            return seen

        found = eventually(look)
        assert found is not None
        return found

    def run(self, replicas: list[Replica]) -> Observed:
        self.backend.prepare(desired_of(*{replica.spec for replica in replicas}, replicas=len(replicas)))
        self.backend.start(replicas, secrets={})
        return self.until(lambda seen: all(ready(seen, replica.name) for replica in replicas))

    def stop(self, *names: str) -> Observed:
        self.backend.stop(names)
        return self.until(lambda seen: not any(name in seen.replicas and seen.replicas[name].running for name in names))


def ready(seen: Observed, name: str) -> bool:
    return name in seen.replicas and seen.replicas[name].state is State.READY


def pids(seen: Observed) -> dict[str, int | None]:
    return {name: replica.pid for name, replica in seen.replicas.items()}


@pytest.fixture(params=["memory", pytest.param("supervisor", marks=pytest.mark.system)])
def site(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[Site]:
    if request.param == "memory":
        yield Site(MemoryBackend("shop"))
        return
    world = World(short_tmp)
    try:
        yield Site(world.backend)
    finally:
        world.end()


def test_a_daemon_that_does_not_run_is_an_empty_observation(site: Site) -> None:
    assert site.backend.observe() == Observed("shop", up=False)


def test_what_is_preloaded_does_not_run(site: Site) -> None:
    site.backend.prepare(desired_of(SPEC))
    site.backend.preload(replicas_of(SPEC, 2), secrets={})

    assert site.backend.observe() == Observed("shop", up=True)


def test_a_prepared_daemon_owns_nothing(site: Site) -> None:
    site.backend.prepare(desired_of(SPEC))
    site.backend.prepare(desired_of(SPEC))

    assert site.backend.observe() == Observed("shop", up=True)


def test_what_was_started_is_seen_as_it_was_asked_for(site: Site) -> None:
    replicas = replicas_of(SPEC, 2)

    seen = site.run(replicas)

    assert sorted(seen.replicas) == ["thumbs.0", "thumbs.1"]
    assert all(seen.replicas[replica.name].digest == replica.digest for replica in replicas)
    assert all(seen.replicas[replica.name].spec == SPEC for replica in replicas)
    assert (seen.up, seen.strays, seen.foreign) == (True, (), ())


def test_starting_twice_is_starting_once(site: Site) -> None:
    replicas = replicas_of(SPEC, 2)
    before = pids(site.run(replicas))

    after = pids(site.run(replicas))

    assert before == after


def test_survivors_keep_their_pids_when_others_come_and_go(site: Site) -> None:
    before = pids(site.run(replicas_of(SPEC, 2)))
    site.run(replicas_of(SPEC, 2, first=2))
    site.stop("thumbs.1", "thumbs.3")
    site.backend.forget(["thumbs.1", "thumbs.3"])

    after = pids(site.backend.observe())

    assert sorted(after) == ["thumbs.0", "thumbs.2"]
    assert after["thumbs.0"] == before["thumbs.0"]


def test_a_stopped_replica_is_still_known_and_runs_again(site: Site) -> None:
    before = pids(site.run(replicas_of(SPEC, 1)))

    stopped = site.stop("thumbs.0").replicas["thumbs.0"]
    assert (stopped.state, stopped.pid) == (State.STOPPED, None)
    site.backend.run_again(["thumbs.0"])

    after = pids(site.until(lambda seen: ready(seen, "thumbs.0")))
    assert after["thumbs.0"] not in (None, before["thumbs.0"])


def test_starting_a_stopped_replica_runs_it(site: Site) -> None:
    site.run(replicas_of(SPEC, 1))
    site.stop("thumbs.0")

    site.run(replicas_of(SPEC, 1))


def test_stopping_and_forgetting_twice_is_doing_it_once(site: Site) -> None:
    site.run(replicas_of(SPEC, 1))
    for _ in range(2):
        site.stop("thumbs.0")
        site.backend.stop(["thumbs.0", "thumbs.7"])
    for _ in range(2):
        site.backend.forget(["thumbs.0", "thumbs.7"])

    assert site.backend.observe() == Observed("shop", up=True)


def test_a_running_replica_is_not_forgotten(site: Site) -> None:
    before = pids(site.run(replicas_of(SPEC, 1)))

    with pytest.raises(FleetError, match=r"thumbs\.0"):
        site.backend.forget(["thumbs.0"])

    assert pids(site.backend.observe()) == before


def test_a_replica_that_runs_another_spec_is_not_started_over(site: Site) -> None:
    before = pids(site.run(replicas_of(SPEC, 1)))

    with pytest.raises(FleetError, match=r"thumbs\.0"):
        site.backend.start(replicas_of(OTHER, 1), secrets={})

    seen = site.backend.observe()
    assert pids(seen) == before
    assert seen.replicas["thumbs.0"].spec == SPEC


def resized(replicas: list[Replica]) -> list[Replica]:
    """The same replicas with settings that need no restart."""
    return [replace(one, spec=replace(one.spec, restart=RestartPolicy(max_crashes=77))) for one in replicas]


def test_a_resized_replica_keeps_its_process_and_says_its_new_settings(site: Site) -> None:
    replicas = replicas_of(SPEC, 2)
    before = pids(site.run(replicas))
    wanted = resized(replicas[:1])

    for _ in range(2):
        site.backend.resize(wanted, secrets={})

    seen = site.until(lambda seen: seen.replicas["thumbs.0"].follows(wanted[0].spec))
    assert pids(seen) == before
    assert seen.replicas["thumbs.1"].spec == SPEC
    site.run(replicas_of(SPEC, 1, first=2))
    assert {**before, **pids(site.backend.observe())} == pids(site.backend.observe()), "the daemon saw a change"


def test_a_stopped_replica_runs_again_with_its_new_settings(site: Site) -> None:
    replicas = replicas_of(SPEC, 2)
    site.run(replicas)
    site.stop("thumbs.0", "thumbs.1")
    started, resumed = resized(replicas)

    site.backend.start([started], secrets={})
    site.backend.resize([resumed], secrets={})
    site.backend.run_again(["thumbs.1"])

    seen = site.until(lambda seen: ready(seen, "thumbs.0") and ready(seen, "thumbs.1"))
    assert [one.spec for one in seen.replicas.values()] == [started.spec, resumed.spec]


def test_what_needs_a_restart_is_no_resize(site: Site) -> None:
    site.run(replicas_of(SPEC, 1))

    for wanted in (replicas_of(OTHER, 1), replicas_of(SPEC, 1, first=7)):
        with pytest.raises(FleetError, match=r"thumbs\.[07]"):
            site.backend.resize(wanted, secrets={})

    assert site.backend.observe().replicas["thumbs.0"].spec == SPEC


def test_a_replaced_replica_keeps_its_name(site: Site) -> None:
    site.run(replicas_of(SPEC, 1))
    site.stop("thumbs.0")
    site.backend.forget(["thumbs.0"])

    seen = site.run(replicas_of(OTHER, 1))

    assert [(name, replica.spec) for name, replica in seen.replicas.items()] == [("thumbs.0", OTHER)]


def test_a_hold_that_comes_and_goes_leaves_the_replica_running(site: Site) -> None:
    """Only what keeps a record of its own looks at a hold, and is told as held: here that is the memory's."""
    before = pids(site.run(replicas_of(SPEC, 1)))

    site.backend.hold(["thumbs.0"], on=True)
    assert site.until(lambda seen: seen.replicas["thumbs.0"].held is isinstance(site.backend, MemoryBackend))
    site.backend.hold(["thumbs.0"], on=False)

    assert pids(site.until(lambda seen: not seen.replicas["thumbs.0"].held)) == before


def test_shutdown_leaves_nothing(site: Site) -> None:
    site.run(replicas_of(SPEC, 2))
    site.stop("thumbs.0", "thumbs.1")
    site.backend.forget(["thumbs.0", "thumbs.1"])
    site.backend.shutdown()
    site.backend.shutdown()

    assert site.backend.observe() == Observed("shop", up=False)
    site.run(replicas_of(SPEC, 1))


def test_shutdown_is_refused_while_something_runs(site: Site) -> None:
    before = pids(site.run(replicas_of(SPEC, 1)))

    with pytest.raises(FleetError):
        site.backend.shutdown()

    assert pids(site.backend.observe()) == before


def test_a_replica_that_drains_is_seen_draining(site: Site, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    if isinstance(site.backend, MemoryBackend):
        site.backend.stepwise = True
        site.backend.prepare(desired_of(SPEC))
        site.backend.start(replicas_of(SPEC, 1), secrets={})
        site.backend.tick()
    else:
        site.run(replicas_of(spec_of(drains_until(gate)), 1))
    site.backend.stop(["thumbs.0"])

    assert site.backend.observe().replicas["thumbs.0"].state is State.DRAINING
    gate.touch()


def test_a_broken_connection_is_made_anew(site: Site) -> None:
    before = pids(site.run(replicas_of(SPEC, 1)))
    site.backend.close()

    assert pids(site.backend.observe()) == before
