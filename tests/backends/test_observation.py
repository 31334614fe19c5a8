"""From what supervisord, records and launch documents say to a state: every combination that matters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.backends.supervisor.observe import Sight, observed
from fleet.backends.supervisor.processes import Proc, Table
from fleet.backends.supervisor.rpc import Process, ProcessState
from fleet.core.observed import RunningTask, State, Trouble
from fleet.core.spec import HealthCheckSpec, Kind, PoolSpec, WorkerSpec
from fleet.replica.crash_history import Life
from fleet.replica.health_result import HealthResult
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.record import RecordView, SlotView
from fleet.state.controller_heartbeat import Heartbeat

NOW = 10_000.0
DIGEST = "9f31c2ab"
SPEC = WorkerSpec(kind="worker", fleet="shop", group="thumbs", pool=PoolSpec("prefork", 4), ready_after_seconds=5.0)
RUNNING = Process("thumbs.0", f"thumbs.0@{DIGEST}", ProcessState.RUNNING, 42, 9_900, 0, "")
RECORD = RecordView(
    pid=42,
    digest=DIGEST,
    state="ready",
    slots=4,
    processed=7,
    failed=1,
    retried=0,
    started_at=9_950.0,
    heartbeat_at=9_999.0,
    hold=False,
    note="",
    tasks=(SlotView(1, 43, "id-1", "shop.thumb", 9_990.0, 0.0),),
    line_up=True,
    consumed_at=9_999.0,
)


def sight(
    *,
    process: Process | None = RUNNING,
    record: RecordView | None = RECORD,
    spec: WorkerSpec = SPEC,
    digest: str = DIGEST,
    answers: bool | None = None,
    launching: bool = False,
    health: HealthResult | None = None,
) -> Sight:
    launch = LaunchDocument(Path("thumbs.0.json"), "shop", "thumbs.0", digest, spec, secrets={})
    return Sight("thumbs.0", DIGEST, process, launch, record, 1 << 20, NOW, answers, launching=launching, health=health)


def test_a_ready_worker_is_told_whole() -> None:
    seen = observed(sight())

    assert (seen.name, seen.state, seen.pid, seen.digest, seen.spec) == ("thumbs.0", State.READY, 42, DIGEST, SPEC)
    assert (seen.slots, seen.busy, seen.processed, seen.failed) == (4, 1, 7, 1)
    assert (seen.memory_bytes, seen.uptime_seconds, seen.note) == (1 << 20, 50.0, "")
    assert seen.tasks == (RunningTask("id-1", "shop.thumb", 10.0),)


def test_how_long_it_has_been_ready_is_its_own_word_and_nothing_while_it_is_not() -> None:
    ready = replace(RECORD, state_at=NOW - 12.0)
    assert observed(sight(record=ready)).ready_seconds == 12.0
    assert observed(sight(record=replace(ready, state="draining"))).ready_seconds == 0.0
    assert observed(sight(record=replace(ready, heartbeat_at=NOW - 60.0))).ready_seconds == 0.0, "it is stuck"
    assert observed(sight(process=None)).ready_seconds == 0.0


def test_what_a_worker_counts_includes_what_runs_in_it() -> None:
    running = (*RECORD.tasks, SlotView(2, 44, "id-2", "shop.thumb", NOW + 5.0, 0.0))
    seen = observed(sight(record=replace(RECORD, busy_seconds=90.0, waiting=3, tasks=running)))

    assert (seen.counts, seen.busy, seen.reserved, seen.busy_seconds) == (True, 2, 5, 100.0)


def test_a_task_that_ends_leaves_its_seconds_behind() -> None:
    before = observed(sight(record=replace(RECORD, busy_seconds=90.0)))
    after = observed(sight(record=replace(RECORD, busy_seconds=100.0, tasks=())))

    assert before.busy_seconds == after.busy_seconds == 100.0


@pytest.mark.parametrize("stale", [replace(RECORD, pid=41), replace(RECORD, digest="00000000"), None])
def test_nobody_counts_for_a_process_that_has_not_spoken_yet(stale: RecordView | None) -> None:
    seen = observed(sight(record=stale and replace(stale, busy_seconds=90.0, waiting=3)))

    assert (seen.counts, seen.busy_seconds, seen.reserved) == (False, 0.0, 0)


def test_a_program_of_somebody_else_counts_nothing() -> None:
    seen = observed(sight(record=replace(RECORD, foreign=True, processed=0, tasks=())))

    assert (seen.counts, seen.busy_seconds, seen.reserved) == (False, 0.0, 0)


CELERY = replace(SPEC, kind="celery")
MUTE = replace(RECORD, foreign=True, tasks=(), started_at=NOW - 60)


def test_celerys_worker_with_a_record_is_told_as_fleets_own() -> None:
    own, celery = observed(sight()), observed(sight(spec=CELERY))

    assert replace(celery, spec=SPEC) == own
    assert own.can_hold
    assert celery.can_hold


def test_celerys_worker_with_a_record_is_in_trouble_by_the_same_rules() -> None:
    silent = observed(sight(spec=CELERY, record=replace(RECORD, heartbeat_at=NOW - 45)))
    assert (silent.trouble, silent.is_ready) == (Trouble.STUCK, False)
    fasting = replace(RECORD, consumed_at=NOW - 90, freed_at=NOW - 90, state_at=NOW - 90, tasks=())
    idle = observed(sight(spec=CELERY, record=fasting))
    assert (idle.trouble, idle.is_ready) == (Trouble.NOT_CONSUMING, False)


def test_celerys_worker_is_starting_until_its_record_is_its_own() -> None:
    assert observed(sight(spec=CELERY, record=replace(MUTE, awaited=True))).state is State.STARTING


def test_celerys_worker_is_starting_while_its_launcher_has_written_nothing() -> None:
    assert observed(sight(spec=CELERY, record=None)).state is State.STARTING


def test_celerys_worker_without_a_record_is_ready_after_its_time_and_cannot_be_held() -> None:
    seen = observed(sight(spec=CELERY, record=replace(MUTE, hold=True)))

    assert (seen.state, seen.counts, seen.held, seen.can_hold) == (State.READY, False, False, False)
    assert observed(sight(spec=CELERY, record=replace(MUTE, started_at=NOW - 1))).state is State.STARTING


@pytest.mark.parametrize("stale", [replace(RECORD, pid=41), replace(RECORD, digest="00000000"), None])
def test_a_record_of_an_earlier_life_makes_nobody_ready(stale: RecordView | None) -> None:
    seen = observed(sight(record=stale))

    assert (seen.state, seen.tasks, seen.busy) == (State.STARTING, (), 0)
    assert seen.uptime_seconds == 100.0


@pytest.mark.parametrize(
    ("said", "state"),
    [("starting", State.STARTING), ("draining", State.DRAINING), ("stopped", State.DRAINING), ("failed", State.FAILED)],
)
def test_a_living_worker_is_what_it_says(said: str, state: State) -> None:
    assert observed(sight(record=replace(RECORD, state=said))).state is state


@pytest.mark.parametrize(
    ("state", "exit_status", "seen"),
    [
        (ProcessState.STOPPED, 0, State.STOPPED),
        (ProcessState.EXITED, 0, State.STARTING),
        (ProcessState.EXITED, 1, State.STARTING),
        (ProcessState.EXITED, 78, State.FAILED),
        (ProcessState.FATAL, 0, State.FAILED),
        (ProcessState.BACKOFF, 0, State.STARTING),
        (ProcessState.UNKNOWN, 0, State.UNKNOWN),
    ],
)
def test_a_dead_replica_is_what_supervisord_says(state: ProcessState, exit_status: int, seen: State) -> None:
    found = observed(sight(process=replace(RUNNING, state=state, pid=0, exit_status=exit_status)))

    assert (found.state, found.pid, found.uptime_seconds) == (seen, None, 0.0)


def test_a_stopping_replica_drains_and_still_shows_its_tasks() -> None:
    seen = observed(sight(process=replace(RUNNING, state=ProcessState.STOPPING)))

    assert (seen.state, seen.pid, seen.busy) == (State.DRAINING, 42, 1)


def test_a_parked_replica_says_why() -> None:
    parked = replace(RUNNING, state=ProcessState.EXITED, pid=0, exit_status=78)

    assert observed(sight(process=parked, record=replace(RECORD, note="parked: 9 crashes"))).note == "parked: 9 crashes"
    assert observed(sight(process=parked, record=None)).note == "parked after too many crashes"


def test_a_program_without_words_is_ready_when_it_has_lived_long_enough() -> None:
    command = replace(SPEC, kind="command")
    young = replace(RECORD, started_at=NOW - 4.0, foreign=True)

    assert observed(sight(spec=command, record=young)).state is State.STARTING
    assert observed(sight(spec=command, record=replace(RECORD, foreign=True))).state is State.READY


def test_a_program_that_can_be_asked_is_ready_when_it_answers() -> None:
    command = replace(SPEC, kind="command")
    young = replace(RECORD, started_at=NOW, foreign=True)

    assert observed(sight(spec=command, record=young, answers=True)).state is State.READY
    mute = observed(sight(spec=command, record=replace(RECORD, foreign=True), answers=False))
    assert (mute.state, mute.note) == (State.STARTING, "does not answer yet")


def test_a_program_that_answers_is_ready_though_its_record_is_damaged() -> None:
    command = replace(SPEC, kind="command")

    assert observed(sight(spec=command, record=None, answers=True)).state is State.READY
    assert observed(sight(spec=command, record=None, answers=False)).state is State.STARTING
    assert observed(sight(spec=command, record=None, answers=True, launching=True)).state is State.STARTING


def test_a_silent_worker_is_noted() -> None:
    assert (
        observed(sight(record=replace(RECORD, heartbeat_at=NOW - 45))).note
        == "stuck: no heartbeat for 45s; runs shop.thumb"
    )


def test_a_spec_of_another_digest_is_not_what_runs() -> None:
    assert observed(sight(digest="00000000")).spec is None


def test_memory_is_that_of_the_whole_tree() -> None:
    table = Table({pid: Proc(pid, parent, 0, 100) for pid, parent in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 1)]})

    assert table.usage(2)[0] == 300
    assert table.usage(9)[0] == 0


def test_a_table_with_a_cycle_ends() -> None:
    table = Table({2: Proc(2, 3, 0, 100), 3: Proc(3, 2, 0, 100)})

    assert table.usage(2)[0] == 200


def test_one_that_was_told_to_stop_is_leaving_and_no_longer_held() -> None:
    resting = replace(RECORD, state="draining", hold=True, resting=True)

    assert observed(sight(record=resting)).held
    assert not observed(sight(record=resting, process=replace(RUNNING, state=ProcessState.STOPPING))).held


def test_one_that_was_released_is_ready_before_it_notices() -> None:
    resting = replace(RECORD, state="draining", hold=False, resting=True)

    assert observed(sight(record=resting)).state is State.READY
    assert observed(sight(record=replace(resting, resting=False))).state is State.DRAINING


@pytest.mark.parametrize(
    ("record", "trouble"),
    [
        (replace(RECORD, heartbeat_at=NOW - 45), Trouble.STUCK),
        (replace(RECORD, tasks=(SlotView(1, 43, "id-1", "shop.thumb", NOW - 90, NOW - 60),)), Trouble.STUCK),
        (replace(RECORD, consumed_at=NOW - 45, state_at=NOW - 99), Trouble.NOT_CONSUMING),
        (replace(RECORD, consumed_at=NOW - 45, state_at=NOW - 99, line_up=False), Trouble.NOT_CONSUMING),
        (replace(RECORD, consumed_at=0.0, state_at=NOW - 45), Trouble.NOT_CONSUMING),
        (replace(RECORD, state="draining", hold=True, heartbeat_at=NOW - 45), Trouble.STUCK),
    ],
)
def test_a_worker_that_does_not_work_is_not_ready(record: RecordView, trouble: Trouble) -> None:
    seen = observed(sight(record=record))

    assert (seen.is_ready, seen.trouble) == (False, trouble)
    assert seen.state is not State.READY
    assert seen.note.startswith(f"{trouble}: ")


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, kind="command")])
def test_one_that_crashed_twice_must_outlive_its_last_crash(spec: WorkerSpec) -> None:
    young, old = replace(RECORD, started_at=NOW - 15), replace(RECORD, started_at=NOW - 25)
    lives = (Life(NOW - 90, NOW - 70), Life(NOW - 68, NOW - 48))

    seen = observed(replace(sight(record=young, spec=spec), lives=lives))
    assert (seen.state, seen.trouble, seen.is_ready) == (State.STARTING, Trouble.CRASHING, False)
    assert seen.note == "crashed 2 times, last after 20s"
    assert observed(replace(sight(record=old, spec=spec), lives=lives)).is_ready
    assert observed(replace(sight(record=young, spec=spec), lives=lives[1:])).is_ready, "one crash is no loop"
    long = (Life(NOW - 590, NOW - 300), Life(NOW - 299, NOW - 48))
    assert observed(replace(sight(record=young, spec=spec), lives=long)).is_ready, "these had recovered"


def test_a_program_whose_record_was_deleted_is_ready_all_the_same() -> None:
    assert observed(sight(spec=replace(SPEC, kind="command"), record=None)).state is State.READY


def test_a_program_that_was_not_started_yet_is_young_whatever_supervisord_says() -> None:
    """Of a start supervisord keeps the whole second only, and a launcher may wait for long."""
    assert observed(sight(spec=replace(SPEC, kind="command"), record=None, launching=True)).state is State.STARTING


@pytest.mark.parametrize(("next_at", "works"), [(NOW - 200, False), (NOW - 5, True), (NOW + 30, True), (0.0, False)])
def test_a_controller_that_does_not_look_any_more_is_stuck(next_at: float, works: bool) -> None:
    command = replace(RECORD, foreign=True, started_at=NOW - 300)
    beat = Heartbeat(next_at, next_at, RUNNING.pid if next_at else 0)
    found = replace(sight(record=command, spec=replace(SPEC, kind="command")), heartbeat=beat)

    seen = observed(found)
    assert (seen.is_ready, seen.trouble) == (works, Trouble.NONE if works else Trouble.STUCK)
    assert works or seen.note.startswith("stuck: no heartbeat: the controller looked last")


def test_a_controller_that_has_just_started_is_not_late() -> None:
    """And it is ready as soon as it has begun to look, however long it has lived."""
    young = sight(record=replace(RECORD, foreign=True, started_at=NOW - 20), spec=replace(SPEC, kind="command"))
    before = observed(replace(young, heartbeat=Heartbeat(NOW - 900, NOW - 890, pid=41)))
    assert (before.state, before.trouble) == (State.STARTING, Trouble.NONE)
    newborn = sight(record=replace(RECORD, foreign=True, started_at=NOW), spec=replace(SPEC, kind="command"))
    assert observed(replace(newborn, heartbeat=Heartbeat(NOW, NOW, pid=RUNNING.pid))).is_ready


ONCE = replace(SPEC, kind="command", restart=replace(SPEC.restart, policy="onFailure"))


@pytest.mark.parametrize(
    ("spec", "record", "state"),
    [
        (ONCE, replace(RECORD, state="stopped", note="exit code 0 after 3s"), State.COMPLETED),
        (ONCE, replace(RECORD, state="failed", note="exit code 3 after 3s"), State.FAILED),
        (ONCE, replace(RECORD, state="stopped", digest="00000000"), State.FAILED),
        (ONCE, None, State.FAILED),
        (SPEC, replace(RECORD, state="stopped"), State.FAILED),
    ],
)
def test_what_ended_for_good_has_completed_where_its_record_says_so(
    spec: WorkerSpec, record: RecordView | None, state: State
) -> None:
    gone = replace(RUNNING, state=ProcessState.EXITED, exit_status=78, pid=0)
    seen = observed(sight(process=gone, record=record, spec=spec))
    assert (seen.state, seen.is_ready) == (state, state is State.COMPLETED)


def test_a_job_is_not_ready_while_it_runs() -> None:
    record = replace(RECORD, foreign=True, started_at=0.0)
    spec = replace(SPEC, kind="command", ready_after_seconds=1.0)
    assert observed(sight(spec=spec, record=record)).state is State.READY
    assert observed(sight(spec=replace(spec, job=True), record=record)).state is State.STARTING


CHECKED = replace(SPEC, health_check=HealthCheckSpec(port=8000))
WELL = HealthResult(42, at=NOW, well_since=NOW - 7.0)
SICK = replace(WELL, failures=3, reason="status 503")


@pytest.mark.parametrize("kind", ["worker", "celery", "command"])
@pytest.mark.parametrize(
    ("health", "state", "trouble", "note"),
    [
        (WELL, State.READY, Trouble.NONE, ""),
        (replace(SICK, failures=2), State.READY, Trouble.NONE, ""),
        (SICK, State.UNKNOWN, Trouble.UNHEALTHY, "unhealthy: 3 health checks failed: status 503"),
        (None, State.STARTING, Trouble.NONE, "no health check has passed yet"),
        (replace(SICK, pid=41), State.STARTING, Trouble.NONE, "no health check has passed yet"),
        (replace(SICK, well_since=0.0), State.STARTING, Trouble.NONE, "no health check has passed yet: status 503"),
    ],
)
def test_a_health_check_decides_whether_what_runs_is_ready(
    kind: Kind, health: HealthResult | None, state: State, trouble: Trouble, note: str
) -> None:
    record = replace(RECORD, foreign=kind != "worker")
    seen = observed(sight(spec=replace(CHECKED, kind=kind), record=record, health=health))
    assert (seen.state, seen.trouble, seen.note) == (state, trouble, note)
    assert seen.is_ready == (state is State.READY)
    assert seen.ready_seconds == (7.0 if seen.is_ready else 0.0)


def test_what_checks_have_told_says_nothing_where_none_is_made_or_nothing_runs() -> None:
    assert observed(sight(health=SICK)).is_ready
    assert observed(sight(spec=CHECKED, record=replace(RECORD, state="draining"), health=SICK)).state is State.DRAINING
    gone = replace(RUNNING, state=ProcessState.STOPPED, pid=0)
    assert observed(sight(spec=CHECKED, process=gone, health=SICK)).state is State.STOPPED


def test_one_that_never_passes_a_check_is_unhealthy_after_its_time() -> None:
    never = HealthResult(42, at=NOW, failures=50, reason="status 503", within_seconds=49.0)
    seen = observed(sight(spec=CHECKED, health=never))
    assert (seen.trouble, seen.note) == (Trouble.UNHEALTHY, "unhealthy: no health check has passed in 50s: status 503")
