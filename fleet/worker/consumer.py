"""The loop that feeds the pool: fetch what free slots can take, start it, hand its end on.

One loop serves every pool. It runs in the main thread and holds ``channel.lock``, except while a solo task runs inline:
then the housekeeping thread may take the lock and does the loop's housekeeping (``attend``) until the task is over.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fleet.crashes import read_history
from fleet.worker import departure, execution, notify, stacks
from fleet.worker.application import Application
from fleet.worker.call import Call, Outcome, TaskPolicy
from fleet.worker.delivery import TEND_SECONDS, Channel, ChannelLost, Delivery
from fleet.worker.endings import Completion
from fleet.worker.intake import Admission
from fleet.worker.job import Job
from fleet.worker.lifecycle import EXIT_DONE, EXIT_REPLACE, RECORD_STATES, Action, Event, Lifecycle, State
from fleet.worker.line import Connection
from fleet.worker.messages import BadMessage
from fleet.worker.options import WorkerOptions
from fleet.worker.revoked import Revoked
from fleet.worker.settlement import Settlement
from fleet.worker.signals import STACKS, SignalBox
from fleet.worker.tuning import LiveSettings
from fleet.worker.witness import RateGate, TaskEvent, TaskListener
from pools.base import BasePool
from pools.errors import PoolError
from pools.handle import Handle
from pools.loop import EventLoop

if TYPE_CHECKING:
    from fleet.worker.attendant import HousekeepingThread
    from fleet.worker.record import Record

log = logging.getLogger("fleet.worker")

MOST_DELAYED = 10_000
"""Messages with a date that wait in this process, where the broker cannot keep them. Beyond that nothing is fetched."""
REPORT_LIMIT_SECONDS = 60.0
INLINE_POOLS = frozenset({"solo", "custom"})
Chore = Callable[[float], object]
"""Something to see to once a second. Gets ``time.monotonic()``; holds the channel's lock."""


class Consumer:
    """Feeds one pool from one channel until it is told to stop."""

    def __init__(
        self,
        options: WorkerOptions,
        application: Application,
        pool: BasePool,
        channel: Channel,
        *,
        record: Record,
        box: SignalBox,
        loop: EventLoop,
    ) -> None:
        self.options = options
        self.application = application
        self.pool = pool
        self.channel = channel
        self.record = record
        self.life = Lifecycle()
        self.revoked = Revoked(options.record_path and options.record_path.with_suffix(".revoked"))
        self.waiting: deque[Job] = deque()
        self.delayed: list[tuple[float, int, Job]] = []
        self.running: dict[Job, None] = {}
        self.housekeeping: HousekeepingThread | None = None
        self.inline_job: Job | None = None
        self.exit_code = EXIT_DONE
        self.connection = Connection(channel, loop)
        self.settlement = Settlement(channel, replica=options.replica)
        self.listeners: list[TaskListener] = []
        self.every_second: list[Chore] = []
        self.on_exit: list[Callable[[], object]] = []
        self.totals: Counter[str] = Counter()
        self.gate: RateGate | None = None
        self.got_at = time.monotonic()
        self._unreported: deque[Job] = deque()
        self.completion = Completion(
            application,
            self.settlement,
            channel,
            record=record,
            policy_of_manifest=options.spec.task,
            unreported=self._unreported,
            on_stuck=self.replace_soon,
            listeners=self.listeners,
        )
        self.admission = Admission(application, options.spec.task, deaths=_deaths(options))
        self.settings = LiveSettings(self)
        self._box = box
        self._loop = loop
        self._lock = channel.lock
        self._inline = pool.name in INLINE_POOLS
        self._done: deque[tuple[Job, Handle]] = deque()
        self._order = itertools.count()
        self._record_slots = list(range(record.slots - 1, -1, -1))
        self._tick_at = 0.0
        self._fetch_at = 0.0
        self._asked = -1
        self._deadline: float | None = None
        self._announced = False
        self._warned_limits: set[str] = set()

    # -- the loop

    def run(self) -> int:
        """Feed the pool until the worker is to stop; the exit code of the process."""
        with self._lock:
            self._loop.add_reader(self._box.fileno(), self.handle_signals)
            if self.record.hold:
                self.on_event(Event.HOLD)
            while not self.life.stopped:
                self.turn()
        return self.exit_code

    def turn(self) -> None:
        """Once around. The caller holds the lock."""
        now = time.monotonic()
        if now >= self._tick_at:
            self.tick(now)
        if self.life.state is State.STARTING and self.connection.up and self.pool.free_slots > 0:
            self.on_event(Event.CONNECTED)  # and not before: a worker whose slots cannot start is not ready
        moved = self._settle_done()
        self._notice_loss()
        if self.connection.up:
            moved |= self._feed(now)
        self._notice_loss()
        if self.life.leaving and self._is_empty():
            self.on_event(Event.EMPTY)
        if not moved:
            self._before_waiting()
        self._loop.run_once(0.0 if moved else self._patience())

    def _is_empty(self) -> bool:
        """Nothing runs, nothing is owed. While there is time, a drain waits for a broken line to tell what it owes."""
        owed = self._deadline is not None and self.settlement.debts > 0
        return not (self.running or self._done or self._unreported or owed)

    def _before_waiting(self) -> None:
        before = self.record.waiting
        self._count_waiting()
        if self.completion.counted or self.record.waiting != before:
            self.completion.counted = False
            self.record.beat()
        self.settlement.flush()
        self.connection.watch()

    def _patience(self) -> float:
        if self.life.stopped:
            return 0.0
        now = time.monotonic()
        until = self._tick_at
        if self.delayed:
            until = min(until, now + self.delayed[0][0] - time.time())
        if self.connection.up and self._asked > 0:
            until = min(until, self._fetch_at)
        return max(0.0, until - now)

    # -- fetching

    def _feed(self, now: float) -> bool:
        """Start what can start and fetch what free slots can take; whether anything moved."""
        moved = self._start_waiting()
        wanted = self._wanted()
        if wanted == self._asked and not self.connection.readable and (wanted == 0 or now < self._fetch_at):
            return moved
        try:
            deliveries = self.channel.fetch(wanted)
            self._note_fetch(now, wanted, len(deliveries))
        except ChannelLost as error:
            self._on_lost(error)
            return False
        for place, delivery in enumerate(deliveries):
            try:
                self._take(delivery)
            except ChannelLost as error:
                self.settlement.lost = error
                self.settlement.give_back([_junk(left) for left in deliveries[place:]])  # as soon as there is a line
                self._on_lost(error)
                return False
        return self._start_waiting() or moved or bool(deliveries)

    @property
    def wants(self) -> bool:
        """Whether a message that came now would start now."""
        return self.connection.up and self.pool.free_slots > 0 and self._wanted() > 0

    def _wanted(self) -> int:
        if not self.life.takes_work or self._is_sated():
            return 0
        extra = max(0, (self.admission.policy_of_manifest.prefetch or 0) - self.pool.limit)
        return max(0, self.pool.free_slots + extra - len(self.waiting) - len(self._unreported))

    def _is_sated(self) -> bool:
        """What waits here for its date or its rate is enough."""
        return len(self.delayed) >= MOST_DELAYED or (self.gate is not None and self.gate.full)

    def _note_fetch(self, now: float, wanted: int, got: int) -> None:
        """A fetch that brought all it wanted is repeated at once; else the channel says when to look again."""
        self.settlement.unflushed = False
        self.connection.readable = False
        self._asked = -1 if got and got >= wanted else wanted
        if got:
            self.got_at = now
        if wanted:
            self.record.consumed_at = time.time()
        poll = self.channel.poll_seconds
        self._fetch_at = now + (TEND_SECONDS if poll is None else min(poll, TEND_SECONDS))

    def _take(self, delivery: Delivery) -> None:
        """A message has come."""
        try:
            job = self.admission.job_of(delivery)
        except BadMessage as error:
            log.error("a message in queue %s is no task: %s", delivery.queue, error)
            job = _junk(delivery)
            job.line = self.completion.line
            self.completion.conclude(job, Outcome("dead", error=f"no task message: {error}"))
            return
        job.line = self.completion.line
        if delivery.redelivered and (self._is_running(job) or self.completion.told_before(job)):
            return
        if log.isEnabledFor(logging.DEBUG):
            log.debug("Task %s[%s] received", job.call.name, job.call.id)
        self._place(job)
        if self.listeners and job.ending is None and self.application.knows(job.call.name):
            self._announce_task(TaskEvent.RECEIVED, job)

    def _is_running(self, job: Job) -> bool:
        """Whether a broken line brought the message of a running task again; that one then belongs to the task."""
        for known in self.running:
            if known.key == job.key and not known.settled:
                known.delivery, known.line = job.delivery, job.line
                if known.acked:
                    known.acked = False
                    self.settlement.ack(known)
                return True
        return False

    def _place(self, job: Job) -> None:
        """Let it run, wait or end."""
        verdict = self.admission.examine(job, now=time.time(), revoked=self.revoked)
        if verdict.way == "run":
            self.waiting.append(job)
        elif verdict.way == "later":
            self._put_off(job)
        else:
            job.ending, job.detail = verdict.ending, verdict.detail
            log.warning("Task %s[%s] does not run: %s", job.call.name, job.call.id, verdict.detail)
            self.completion.end_unreported(job)

    def _put_off(self, job: Job) -> None:
        if not self.channel.delay(job.delivery, due=job.due):
            heapq.heappush(self.delayed, (job.due, next(self._order), job))
            if len(self.delayed) == MOST_DELAYED:
                log.warning("%d tasks wait for their date in this worker: it fetches no more for now", MOST_DELAYED)

    # -- starting

    def _start_waiting(self) -> bool:
        while self.delayed and self.delayed[0][0] <= time.time():
            self._place(heapq.heappop(self.delayed)[2])
        started = False
        while self._unreported and self.pool.free_slots > 0:
            job = self._unreported.popleft()
            self._submit(job, execution.record_end, (job.call, job.ending, job.detail), None, REPORT_LIMIT_SECONDS)
            started = True
        while self.waiting and self.life.takes_work and self.pool.free_slots > 0:
            started |= self._start_batch()
        return started

    def _start_batch(self) -> bool:
        """Start as many as there are free slots. Early acknowledgements reach the broker before: what starts after
        that and dies must not come again."""
        room = 1 if self._inline else self.pool.free_slots
        batch: list[Job] = []
        while self.waiting and len(batch) < room:
            job = self.waiting.popleft()
            if self._may_start(job):
                batch.append(job)
        early = [job for job in batch if not job.policy.late]
        for job in early:
            self.settlement.ack(job)
        if early:
            self.settlement.flush()
            self._notice_loss()  # before anything forks: descriptors of a dead connection must not be watched any more
        for job in batch:
            self._start(job)
        return bool(batch)

    def _may_start(self, job: Job) -> bool:
        if job.call.id in self.revoked:
            job.ending, job.detail = "revoked", "revoked"
            self.completion.end_unreported(job)
            return False
        pause = self.gate.pause_seconds(job) if self.gate is not None else 0.0
        if pause > 0:
            heapq.heappush(self.delayed, (time.time() + pause, next(self._order), job))
        return pause <= 0

    def _start(self, job: Job) -> None:
        soft, hard = self._limits(job)
        self.totals[job.call.name] += 1
        if self.listeners:
            self._announce_task(TaskEvent.STARTED, job)
        awaited = self.pool.traits.async_tasks and self.application.is_async(job.call.name)
        perform = execution.perform_async if awaited else execution.perform
        self._submit(job, perform, (job.call,), soft, hard)

    def _submit(self, job: Job, target: Any, args: tuple[Any, ...], soft: float | None, hard: float | None) -> None:
        self.running[job] = None
        job.started_at = time.time()
        job.slot = self._record_slots.pop() if self._record_slots else -1
        self._note_start(job, hard)
        if self._inline:
            self._run_inline(job, target, args, soft, hard)
            return
        self._apply(job, target, args, soft, hard)
        if job.handle is not None and not job.handle.done:
            self._note_start(job, hard)

    def _run_inline(self, job: Job, target: Any, args: tuple[Any, ...], soft: float | None, hard: float | None) -> None:
        """Run it here. Meanwhile the lock is free, and the housekeeping thread may do the housekeeping."""
        self.inline_job = job
        if self.housekeeping is not None:
            self.housekeeping.look()
        self._lock.release()
        try:
            self._apply(job, target, args, soft, hard)
        except KeyboardInterrupt:
            log.error("Task %s[%s] raised KeyboardInterrupt", job.call.name, job.call.id)
        finally:
            self._lock.acquire()
            self.inline_job = None

    def _apply(self, job: Job, target: Any, args: tuple[Any, ...], soft: float | None, hard: float | None) -> None:
        try:
            job.handle = self.pool.apply_async(
                target,
                args,
                id=job.call.id,
                callback=partial(self._on_done, job),
                soft_timeout_seconds=soft,
                timeout_seconds=hard if self.pool.traits.hard_limit else None,
            )
        except PoolError as error:
            log.error("the pool refuses task %s[%s]: %s", job.call.name, job.call.id, error)
            self._on_done(job, _refused(self.pool, job, error))

    def _note_start(self, job: Job, hard: float | None) -> None:
        if job.slot >= 0:
            pid = job.handle.pid if job.handle is not None else 0
            until = job.started_at + hard if hard else 0.0
            self.record.begin(job.slot, task_id=job.call.id, task_name=job.call.name, until=until, pid=pid)

    def _limits(self, job: Job) -> tuple[float | None, float | None]:
        soft, hard = job.policy.soft_time_limit_seconds, job.policy.time_limit_seconds
        traits = self.pool.traits
        if (soft is not None and not traits.soft_limit) or (hard is not None and not traits.hard_limit):
            # Only a pool class of the user's: for our own kinds a manifest that asks for this is refused.
            if job.call.name not in self._warned_limits:
                self._warned_limits.add(job.call.name)
                log.warning("the %s pool cannot keep all time limits; %s runs without", self.pool.name, job.call.name)
            soft = soft if traits.soft_limit else None
            hard = hard if traits.hard_limit else None
        return soft, hard

    # -- ends

    def _on_done(self, job: Job, handle: Handle) -> None:
        self._done.append((job, handle))

    def _settle_done(self) -> bool:
        moved = False
        while self._done:
            job, handle = self._done.popleft()
            moved = True
            self._forget_running(job)
            if not job.settled:
                self.completion.settle(job, handle)
        return moved

    def _forget_running(self, job: Job) -> None:
        self.running.pop(job, None)
        if job.slot >= 0:
            self.record.end(job.slot)
            self._record_slots.append(job.slot)
            job.slot = -1

    def give_back_running(self) -> None:
        """What runs goes back to its queue; what the pool still says about it is ignored."""
        left = [job for job in self.running if not job.settled]
        for job in left:
            job.settled = True
        self.settlement.give_back(left)
        self.running.clear()

    # -- housekeeping: by the loop, and by the housekeeping thread while a solo task runs

    def attend(self) -> bool:
        """From the housekeeping thread: do what the loop cannot do now; False when it needs no help."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self.inline_job is None:
                return False
            self.handle_signals()
            now = time.monotonic()
            if now >= self._tick_at:
                self.tick(now)
            self.settlement.flush()
            self._notice_loss()
            return True
        finally:
            self._lock.release()

    def handle_signals(self) -> None:
        """Signals that have come."""
        for signum in self._box.take():
            if signum == STACKS:
                stacks.write(self)
                continue
            log.info("%s received", signal.Signals(signum).name)
            self.on_event(Event.QUIT if signum == signal.SIGQUIT else Event.TERM)

    def tick(self, now: float) -> None:
        """Once a second: lease, record, operator's hold, deadline, connection."""
        self._tick_at = now + TEND_SECONDS
        if self.connection.up:
            self._on_lost(self.connection.tend())
        elif now >= self.connection.try_at:
            self._connect()
        if self.record.hold != (self.life.state is State.HELD):
            self.on_event(Event.HOLD if self.record.hold else Event.RESUME)
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            log.warning("the drain timeout of %g s is over", self.options.spec.drain_timeout_seconds)
            self.on_event(Event.DEADLINE)
        self._do_every_second(now)
        self._publish_state()

    def _do_every_second(self, now: float) -> None:
        for work in self.every_second:
            try:
                work(now)
            except Exception:
                log.exception("the work of a second failed")

    def _connect(self) -> None:
        if not self.connection.connect():
            self._tick_at = min(self._tick_at, self.connection.try_at)
            return
        self._asked = -1
        self.completion.connection_restored()
        self._notice_loss()

    def _notice_loss(self) -> None:
        self._on_lost(self.settlement.lost)

    def _on_lost(self, error: ChannelLost | None) -> None:
        """The connection is gone. What runs goes on; what has not started will not be ours."""
        if error is None or not self.connection.up:
            return
        self.settlement.lost = error
        self.connection.break_off(error)
        self._tick_at = 0.0
        self.completion.connection_lost()
        self._hand_back()

    def _count_waiting(self) -> None:
        """Messages in hand that could run, those included that the broker pushed and nobody has fetched yet."""
        self.record.waiting = len(self.waiting) + len(self._unreported) + self.channel.pushed

    def _publish_state(self) -> None:
        self._count_waiting()
        self.record.line_up, self.record.sated = self.connection.up, self._is_sated()
        self.record.resting = self.life.state is State.HELD
        self.record.become(RECORD_STATES[self.life.state], self._note())

    def _note(self) -> str:
        notes = []
        if self.life.state is State.HELD:
            notes.append("held")
        if self._deadline is not None:
            left = len(self.running)
            notes.append(f"{left} task{'s'[: left != 1]} left, {max(0.0, self._deadline - time.monotonic()):.0f} s")
        if not self.connection.up and not self.life.stopped:
            notes.append("no connection to the broker")
        return "; ".join(notes)

    # -- life

    def on_event(self, event: Event) -> None:
        """Something happened to this worker."""
        before = self.life.state
        action = self.life.on_event(event)
        if self.life.state is before:
            return
        log.info("%s -> %s", before.value, self.life.state.value)
        self._publish_state()
        _ACTIONS[action](self)
        self._publish_state()

    def _announce(self) -> None:
        self._asked = -1
        notify.tell("READY=1", "STATUS=consuming")
        if not self._announced:
            self._announced = True
            queues = ", ".join(self.queues()) or "no queue"
            log.info("ready: %s pool with %d slots on %s", self.pool.name, self.pool.limit, queues)
            self.application.announce("ready")

    def _hand_back(self) -> None:
        """What has not started goes back to its queue."""
        unstarted = [*self.waiting, *(entry[2] for entry in sorted(self.delayed))]
        self.waiting.clear()
        self.delayed.clear()
        if self.gate is not None:
            self.gate.forget_waiting()
        self.settlement.give_back(unstarted)
        self._asked = -1

    def _drain(self) -> None:
        self._hand_back()
        self._deadline = time.monotonic() + self.options.spec.drain_timeout_seconds
        self._tick_at = 0.0
        notify.tell("STOPPING=1")
        self.application.announce("stopping")
        if self.running:
            log.info("%d running: they may finish", len(self.running))

    def _cut(self) -> None:
        """End what runs, so that it goes back to its queue at once."""
        self._hand_back()
        self._deadline = None
        self.application.announce("cutting")
        if self.running:
            log.warning("cold stop: %d running tasks go back to their queues", len(self.running))
        if self.inline_job is not None:
            departure.give_up_process(self, EXIT_DONE)
        if self.pool.traits.terminate and not self._inline:
            self.pool.terminate()  # each handle comes back as Terminated, and its message is given back
            self._settle_done()
        self.give_back_running()
        self._report_unreported()

    def _report_unreported(self) -> None:
        """Ends that no slot had room to record: told again by whoever gets the message, or here where nobody will."""
        for job in self._unreported:
            if job.acked and job.ending is not None:
                departure.record_end(self, job, job.ending)
        self.settlement.give_back([job for job in self._unreported if not job.acked])
        self._unreported.clear()

    def _leave(self) -> None:
        self.settlement.flush()

    def replace_soon(self, why: str) -> None:
        """Drain, and let the supervisor start another process."""
        log.error("%s; this process drains and is replaced", why)
        self.exit_code = EXIT_REPLACE
        if not self.life.leaving:
            self.on_event(Event.TERM)

    # -- for control

    def jobs(self) -> Iterator[Job]:
        """Everything in hand, running first. A copy: another thread may look."""
        return iter([*self.running, *self.waiting, *(entry[2] for entry in list(self.delayed))])

    def queues(self) -> Sequence[str]:
        """The consumed queues, those of a higher priority first."""
        return [queue.name for queue in sorted(self.settings.queues, key=lambda queue: -queue.priority)]

    def rebuild_connection(self, why: str) -> None:
        """The connection seems to be of no use: make a new one. What runs goes on."""
        self._on_lost(ChannelLost(why))

    # -- changed while it runs

    def on_resized(self) -> None:
        """The pool has another number of slots."""
        before = self.record.capacity
        self.record.resize(self.pool.limit)
        self._record_slots += range(self.record.capacity - 1, before - 1, -1)
        self._asked = -1

    def on_requeued(self, names: Container[str]) -> None:
        """Only queues of these names are consumed from now on."""
        others = [job for job in self.waiting if job.delivery.queue not in names]
        others += [entry[2] for entry in sorted(self.delayed) if entry[2].delivery.queue not in names]
        self.waiting = deque(job for job in self.waiting if job.delivery.queue in names)
        self.delayed = [entry for entry in self.delayed if entry[2].delivery.queue in names]
        heapq.heapify(self.delayed)
        self.settlement.give_back(others)
        self.connection.unwatch()  # descriptors are about to change, and their numbers may come again
        try:
            self.channel.consume(self.settings.queues)  # without a connection too: the next one is told
        except ChannelLost as error:
            self._on_lost(error)
        self._asked = -1

    def on_regated(self) -> None:
        """Rate limits have changed: what waits for one is to be looked at anew."""
        self.delayed = [(job.due, order, job) for _, order, job in self.delayed]
        heapq.heapify(self.delayed)
        self._asked = -1

    def _announce_task(self, event: TaskEvent, job: Job) -> None:
        for listener in self.listeners:
            listener.on_event(event, job)


_ACTIONS = {
    Action.NOTHING: lambda _: None,
    Action.ANNOUNCE: Consumer._announce,
    Action.HAND_BACK: Consumer._hand_back,
    Action.DRAIN: Consumer._drain,
    Action.CUT: Consumer._cut,
    Action.LEAVE: Consumer._leave,
}


def _deaths(options: WorkerOptions) -> Mapping[str, int]:
    return read_history(options.history_path).deaths if options.history_path is not None else {}


def _junk(delivery: Delivery) -> Job:
    """A message that is no task, as a job that can only be buried: its body stays as it came."""
    call = Call(delivery.tag, "", delivery.headers, delivery.body, queue=delivery.queue)
    return Job(delivery, None, call, TaskPolicy(), (delivery.tag, 0))


def _refused(pool: BasePool, job: Job, error: PoolError) -> Handle:
    """The handle of a task that the pool did not take."""
    handle = Handle(pool, job.call.id, None, None, None, None)
    handle.fail(error, time.monotonic())
    return handle
