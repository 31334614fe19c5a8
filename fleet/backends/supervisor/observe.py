"""From what supervisord, a record and a launch document say to one observed replica: PURE.

supervisord knows the process, the record knows the worker. A record is used only when it names the same process and
digest that supervisord runs; otherwise an earlier process wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.backends.supervisor.rpc import LIVE_STATES, Process, ProcessState
from fleet.core.desired import split_name
from fleet.core.health import Condition, judge
from fleet.core.observed import ObservedReplica, RunningTask, State, Trouble
from fleet.core.spec import PARKED_EXIT, WorkerSpec
from fleet.replica.crash_history import Life, crash_loop
from fleet.replica.health_result import HealthResult, Wellness
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.record import RecordView
from fleet.state.controller_heartbeat import Heartbeat

UNSTARTED = "has files but was never started"
PARKED = "parked after too many crashes"


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything known about one replica at one moment.

    answers: whether the embedded broker answers; None for other programs.  lives: its earlier processes.
    heartbeat: the controller's own; None for other programs.  launching: its process is still the launcher.
    health: what its health checks have told.

    spec: what the replica's launch document says.  living_record: the record, if it is the running process's own.
    """

    name: str
    digest: str
    process: Process | None
    launch: LaunchDocument | None
    record: RecordView | None
    memory_bytes: int
    now: float
    answers: bool | None = None
    lives: tuple[Life, ...] = ()
    heartbeat: Heartbeat | None = None
    launching: bool = False
    health: HealthResult | None = None
    cpu_seconds: float = 0.0

    spec: WorkerSpec | None = field(init=False, default=None)
    living_record: RecordView | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        record, process, launch = self.record, self.process, self.launch
        if launch is not None and launch.digest == self.digest:
            object.__setattr__(self, "spec", launch.spec)
        if record is not None and process is not None and process.pid and record.pid == process.pid:
            object.__setattr__(self, "living_record", record if record.digest == self.digest else None)


def observed(sight: Sight) -> ObservedReplica:
    """The replica as people and the planner see it."""
    group, index = split_name(sight.name)
    record, process = sight.living_record, sight.process
    state, note, trouble = _state(sight)
    return ObservedReplica(
        group=group,
        index=index,
        digest=sight.digest,
        state=state,
        pid=process.pid if process is not None and process.pid else None,
        spec=sight.spec,
        slots=_slots(sight),
        busy=record.busy if record else 0,
        processed=sight.record.processed if sight.record else 0,
        failed=sight.record.failed if sight.record else 0,
        memory_bytes=sight.memory_bytes,
        cpu_seconds=sight.cpu_seconds,
        uptime_seconds=_uptime_seconds(sight),
        tasks=_tasks(record, sight.now),
        held=_is_held(sight),
        note=note,
        live=record.live if record else "",
        retried=record.retried if record else 0,
        busy_seconds=_busy_seconds(record, sight.now),
        reserved=record.reserved if record else 0,
        counts=record is not None and not record.foreign,
        cannot_start=record is not None and record.cannot_start,
        crashes=record.crashes if record else 0,
        trouble=trouble,
        ready_seconds=_ready_seconds(sight) if state is State.READY else 0.0,
    )


def _is_held(sight: Sight) -> bool:
    """Whether it is held. A hold does not matter to one that stops; its successor finds it in the record. A program
    that keeps no record never looks at it."""
    is_going = sight.process is not None and sight.process.state is ProcessState.STOPPING
    record = sight.record
    looks = record is not None and (record.awaited or not _is_silent(record))
    return record is not None and record.hold and looks and not is_going


def _is_silent(record: RecordView) -> bool:
    """The launcher wrote it for a program that runs and says nothing of itself."""
    return record.foreign and record.state == "ready"


def _state(sight: Sight) -> tuple[State, str, Trouble]:
    process = sight.process
    if process is None:
        return State.STOPPED, UNSTARTED, Trouble.NONE
    if process.state in LIVE_STATES and process.pid:
        state, note = _living_state(sight)
        if state is State.READY and (young := _unchecked(sight)):
            return State.STARTING, young, Trouble.NONE
        return _troubled(sight, state, note)
    if process.state is ProcessState.EXITED and process.exit_status == PARKED_EXIT:
        if _is_completed(sight):
            return State.COMPLETED, sight.record.note if sight.record else "", Trouble.NONE
        return State.FAILED, (sight.record.note if sight.record else "") or PARKED, Trouble.NONE
    return _DEAD_STATES[process.state], process.note, Trouble.NONE


def _is_completed(sight: Sight) -> bool:
    """Its program has ended well, and is not to run again."""
    record, spec = sight.record, sight.spec
    if record is None or spec is None or spec.restart.policy == "always":
        return False
    return record.state == "stopped" and record.digest == sight.digest


_DEAD_STATES = {
    ProcessState.STOPPED: State.STOPPED,
    ProcessState.STARTING: State.STARTING,
    ProcessState.RUNNING: State.STARTING,
    ProcessState.BACKOFF: State.STARTING,
    ProcessState.STOPPING: State.DRAINING,
    ProcessState.EXITED: State.STARTING,  # for a moment: every exit but the parked one is started again
    ProcessState.FATAL: State.FAILED,
    ProcessState.UNKNOWN: State.UNKNOWN,
}


def _living_state(sight: Sight) -> tuple[State, str]:
    """What it says of itself."""
    record, spec = sight.living_record, sight.spec
    if spec is not None and spec.kind != "worker" and (record is None or _is_silent(record)):
        return _foreign_state(sight, spec)
    if record is None:
        return State.STARTING, ""
    if record.state == "draining" and record.resting and not record.hold:
        return State.READY, record.note  # released, and about to take tasks again
    return (State.DRAINING if record.state == "stopped" else State(record.state)), record.note


def _foreign_state(sight: Sight, spec: WorkerSpec) -> tuple[State, str]:
    """A program that says nothing of itself is ready when it answers, or if it cannot be asked, when it has lived long
    enough; the controller, with its first heartbeat. Where its record was deleted, supervisord knows how long it has
    lived; before the first record it is young. Celery's worker writes one of its own: without any it has not started,
    however long its launcher takes.
    """
    has_begun = sight.record is None and not sight.launching and spec.kind != "celery"
    if sight.living_record is None and not has_begun:
        return State.STARTING, ""
    if sight.answers is not None:
        return (State.READY, "") if sight.answers else (State.STARTING, "does not answer yet")
    if sight.living_record is not None and sight.living_record.awaited:
        return State.STARTING, ""
    if sight.heartbeat is not None and sight.process is not None:
        return (State.READY if sight.heartbeat.pid == sight.process.pid else State.STARTING), ""
    if spec.job:
        return State.STARTING, "the job runs"
    return (State.READY if _uptime_seconds(sight) >= max(spec.ready_after_seconds, 1.0) else State.STARTING), ""


def _troubled(sight: Sight, state: State, note: str) -> tuple[State, str, Trouble]:
    """Whether it works as it says; what does not is not ready."""
    trouble, reason = _trouble(sight, state)
    if not trouble:
        return state, note, trouble
    if trouble is Trouble.CRASHING:
        return State.STARTING, reason, trouble
    return (State.UNKNOWN if state is State.READY else state), f"{trouble}: {reason}", trouble


def _unchecked(sight: Sight) -> str:
    """Why no health check has passed yet, '' where one has or none is made."""
    wellness, reason = _wellness(sight)
    return reason if wellness is Wellness.YOUNG else ""


def _wellness(sight: Sight) -> tuple[Wellness, str]:
    """By its health checks; a replica without one is well."""
    spec, process = sight.spec, sight.process
    if spec is None or not spec.health_check.is_given or process is None:
        return Wellness.WELL, ""
    known = sight.health if sight.health is not None and sight.health.pid == process.pid else HealthResult(process.pid)
    return known.wellness(lived_seconds=_uptime_seconds(sight))


_CONDITIONS = {Condition.STUCK: Trouble.STUCK, Condition.NOT_CONSUMING: Trouble.NOT_CONSUMING}


def _trouble(sight: Sight, state: State) -> tuple[Trouble, str]:
    record, now = sight.living_record, sight.now
    if sight.heartbeat is not None and (problem := sight.heartbeat.problem(_uptime_seconds(sight), now=now)):
        return Trouble.STUCK, problem
    if record is not None and sight.spec is not None and sight.spec.kind != "command":
        health = judge(record, lives=True, now=now)
        if health.condition in _CONDITIONS:
            return _CONDITIONS[health.condition], health.reason
    if state is State.READY and sight.spec is not None:
        wellness, reason = _wellness(sight)
        if wellness is Wellness.UNHEALTHY:
            return Trouble.UNHEALTHY, reason
        loop = crash_loop(sight.lives, sight.spec.restart, began=now - _uptime_seconds(sight), now=now)
        return (Trouble.CRASHING, loop) if loop else (Trouble.NONE, "")
    return Trouble.NONE, ""


def _slots(sight: Sight) -> int:
    if sight.living_record is not None:
        return sight.living_record.slots
    return sight.spec.pool.concurrency if sight.spec is not None and sight.spec.kind != "command" else 0


def _uptime_seconds(sight: Sight) -> float:
    if sight.process is None or not sight.process.pid:
        return 0.0
    since = sight.living_record.started_at if sight.living_record else float(sight.process.started_at)
    return max(0.0, sight.now - since)


def _ready_seconds(sight: Sight) -> float:
    """A worker says since when; of another program its uptime says the same, but for what readiness took."""
    record, spec = sight.living_record, sight.spec
    if spec is not None and spec.health_check.is_given:
        return max(0.0, sight.now - sight.health.well_since) if sight.health is not None else 0.0
    if record is None or spec is None or record.foreign:
        needed = max(spec.ready_after_seconds, 1.0) if spec is not None else 0.0
        return max(0.0, _uptime_seconds(sight) - needed)
    return max(0.0, sight.now - record.state_at)


def _busy_seconds(record: RecordView | None, now: float) -> float:
    """Seconds of tasks that ended and of those that run, by one clock: no jump when a task ends."""
    if record is None:
        return 0.0
    return record.busy_seconds + sum(max(0.0, now - task.since) for task in record.tasks)


def _tasks(record: RecordView | None, now: float) -> tuple[RunningTask, ...]:
    if record is None:
        return ()
    return tuple(RunningTask(task.task_id, task.task_name, max(0.0, now - task.since)) for task in record.tasks)
