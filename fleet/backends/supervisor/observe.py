"""From what supervisord, a record and a launch document say to one observed replica: PURE.

supervisord knows the process, the record knows the worker. A record counts only when it names the very process and
digest that supervisord runs; otherwise it is the word of an earlier life.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.backends.supervisor.rpc import LIVE_STATES, Process, ProcessState
from fleet.core.desired import split_name
from fleet.core.health import Condition, judge
from fleet.core.observed import ObservedReplica, RunningTask, State
from fleet.core.spec import PARKED_EXIT, WorkerSpec
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.record import RecordView

UNSTARTED = "has files but was never started"


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything known about one replica at one moment. ``answers``: whether a program that can be asked (the embedded
    broker) answers; None for the others."""

    name: str
    digest: str
    process: Process | None
    launch: LaunchDocument | None
    record: RecordView | None
    memory_bytes: int
    now: float
    answers: bool | None = None

    @property
    def spec(self) -> WorkerSpec | None:
        """What the replica's launch document says."""
        return self.launch.spec if self.launch is not None and self.launch.digest == self.digest else None

    @property
    def living_record(self) -> RecordView | None:
        """The record, if it is the running process's own."""
        record, process = self.record, self.process
        if record is None or process is None or not process.pid or record.pid != process.pid:
            return None
        return record if record.digest == self.digest else None


def observed(sight: Sight) -> ObservedReplica:
    """The replica as people and the planner see it."""
    group, index = split_name(sight.name)
    record, process = sight.living_record, sight.process
    state, note = _state(sight)
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
        uptime_seconds=_uptime_seconds(sight),
        tasks=_tasks(record, sight.now),
        held=_is_held(sight),
        note=note,
        live=record.live if record else "",
        retried=record.retried if record else 0,
        busy_seconds=_busy_seconds(record, sight.now),
        reserved=record.reserved if record else 0,
        counts=record is not None and not record.foreign,
    )


def _is_held(sight: Sight) -> bool:
    """It takes no work, and stays. Who is told to stop has no use for a hold; its successor finds it in the record.
    A program that keeps no record never looks at it."""
    is_going = sight.process is not None and sight.process.state is ProcessState.STOPPING
    record = sight.record
    looks = record is not None and not (record.foreign and record.state == "ready" and not record.awaited)
    return record is not None and record.hold and looks and not is_going


def _state(sight: Sight) -> tuple[State, str]:
    process = sight.process
    if process is None:
        return State.STOPPED, UNSTARTED
    if process.state in LIVE_STATES and process.pid:
        return _living_state(sight)
    if process.state is ProcessState.EXITED and process.exit_status == PARKED_EXIT:
        return State.FAILED, (sight.record.note if sight.record else "") or "parked after too many crashes"
    return _DEAD_STATES[process.state], process.note


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
    record, spec = sight.living_record, sight.spec
    if record is None:
        return State.STARTING, ""
    if record.state == "ready" and record.foreign and spec is not None:
        return _foreign_state(sight, record, spec)
    health = judge(record, lives=True, now=sight.now)
    amiss = health.condition in (Condition.STUCK, Condition.NOT_CONSUMING)
    note = f"{health.condition}: {health.reason}" if amiss else record.note
    if record.state == "draining" and record.resting and not record.hold:
        return State.READY, note  # released, and about to notice
    return (State.DRAINING if record.state == "stopped" else State(record.state)), note


def _foreign_state(sight: Sight, record: RecordView, spec: WorkerSpec) -> tuple[State, str]:
    """A program that says nothing of itself is ready when it answers, or if it cannot be asked, when it has lived long
    enough."""
    if sight.answers is not None:
        return (State.READY, "") if sight.answers else (State.STARTING, "does not answer yet")
    if record.awaited:
        return State.STARTING, ""
    return (State.READY if sight.now - record.started_at >= spec.ready_after_seconds else State.STARTING), ""


def _slots(sight: Sight) -> int:
    if sight.living_record is not None:
        return sight.living_record.slots
    return sight.spec.pool.concurrency if sight.spec is not None and sight.spec.kind != "command" else 0


def _uptime_seconds(sight: Sight) -> float:
    if sight.process is None or not sight.process.pid:
        return 0.0
    since = sight.living_record.started_at if sight.living_record else float(sight.process.started_at)
    return max(0.0, sight.now - since)


def _busy_seconds(record: RecordView | None, now: float) -> float:
    """What has ended and what runs, by one clock: there is no jump when a task ends."""
    if record is None:
        return 0.0
    return record.busy_seconds + sum(max(0.0, now - task.since) for task in record.tasks)


def _tasks(record: RecordView | None, now: float) -> tuple[RunningTask, ...]:
    if record is None:
        return ()
    return tuple(RunningTask(task.task_id, task.task_name, max(0.0, now - task.since)) for task in record.tasks)
