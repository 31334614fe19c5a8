"""What ``celery control`` tells a worker to do, with Celery's argument names and replies.

A command that cannot be done gets an error that says what can. What changes the loop's state goes through
``LoopCalls``, since in a solo worker a different thread than the loop's listens.
"""

from __future__ import annotations

import logging
import os
import signal as signals
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from fleet.broker.message import LONGEST_LIMIT_SECONDS
from fleet.core.spec import QueueSpec
from fleet.core.text.format import listed, shown
from fleet.errors import FleetError
from fleet.worker.control.greeting import told_ids
from fleet.worker.loop import rate_limits
from fleet.worker.loop.autoscaler import Bounds
from fleet.worker.loop.revoked import stamp_keys
from pools.errors import PoolError
from pools.traits import TRAITS

if TYPE_CHECKING:
    from fleet.worker.apps.base import Application, Remote
    from fleet.worker.control.events import Events
    from fleet.worker.control.inspection import Inspection
    from fleet.worker.control.run_in_loop import LoopCalls
    from fleet.worker.loop.inflight import InFlight
    from fleet.worker.loop.live_settings import LiveSettings
    from fleet.worker.loop.revoked import Revoked
    from fleet.worker.task.job import Job
    from pools.base import BasePool

log = logging.getLogger("fleet.worker")

MOST_QUEUES = 1000
"""Bounds of what commands may ask for, which anybody can send who may write to the broker."""
MOST_IDS = 10_000
LONGEST_NAME = 255
_SHOWN_IDS = 10

Reply = Any
Answer = Callable[..., Reply]


class CommandRefused(Exception):
    """A command that cannot be done; its text is the reply."""


class Commands:
    """The commands. ``afterwards`` collects what is done after the reply is sent: it may end the process."""

    def __init__(
        self,
        remote: Remote,
        calls: LoopCalls,
        *,
        node: str,
        events: Events,
        application: Application,
        pool: BasePool,
        inflight: InFlight,
        settings: LiveSettings,
        revoked: Revoked,
        most_slots: int,
    ) -> None:
        self._remote = remote
        self._node = node
        self._events = events
        self._application = application
        self._pool = pool
        self._inflight = inflight
        self._settings = settings
        self._revoked = revoked
        self._most_slots = most_slots
        self._do = calls.do
        self.afterwards: list[Callable[[], object]] = []

    # -- tasks

    def revoke(self, task_id: Any = (), terminate: Any = False, signal: Any = None, **_: Any) -> Reply:
        """These must not run; with ``terminate`` a running one is ended."""
        ids = _ids(task_id)
        signum = _signal_number(signal)
        running = self._do(lambda: self._revoke(ids))
        log.info("revoked: %s", listed(ids, most=_SHOWN_IDS))
        if unstarted := [task_id for task_id in ids if task_id not in running]:
            # Results are kept by somebody who may be slow, and who listens to commands must not wait.
            mark = partial(self._application.mark_revoked, unstarted)
            threading.Thread(target=mark, name="fleet-revoked", daemon=True).start()
        if not terminate:
            return {"ok": f"tasks {listed(ids, most=_SHOWN_IDS)} flagged as revoked"}
        ended = [task_id for task_id in ids if self._do(partial(self._terminate, task_id, signum))]
        return {"ok": f"terminate: {listed(ended, most=_SHOWN_IDS)}" if ended else "terminate: tasks unknown"}

    def revoke_by_stamped_headers(
        self, headers: Any = (), terminate: Any = False, signal: Any = None, **_: Any
    ) -> Reply:
        """Tasks with one of these stamps must not run. ``headers``: header -> stamps, or a list of ``header=stamp``."""
        signum, told = _signal_number(signal), _stamps(headers)
        keys = {key for header, stamps in told.items() for key in stamp_keys({header: stamps})}
        if not keys:
            raise CommandRefused("no stamp is given: write header=stamp")
        self._do(lambda: self._revoked.add(keys))
        if not terminate:
            return {"ok": f"headers {told} flagged as revoked, but not terminated"}
        running = [
            job for job in self._inflight.running if not keys.isdisjoint(stamp_keys(job.call.headers.get("stamps")))
        ]
        ended = [job.call.id for job in running if self._do(partial(self._terminate, job.call.id, signum))]
        return {"ok": f"headers {told} revoked"} if ended else {"ok": f"headers {told} were not terminated"}

    def terminate(self, task_id: Any = (), signal: Any = None, **_: Any) -> Reply:
        """``revoke`` with ``terminate``; the signal comes first in Celery's own call."""
        return self.revoke(task_id=task_id, terminate=True, signal=signal)

    def _revoke(self, ids: Iterable[str]) -> set[str]:
        """Remember them; the ids of the tasks that run here."""
        self._revoked.add(ids)
        return {job.call.id for job in self._inflight.running}

    def _terminate(self, task_id: str, signum: int) -> bool:
        """End a running task; whether it runs here."""
        job = next((job for job in self._inflight.jobs() if job.call.id == task_id and _can_end(job)), None)
        if job is None:
            return False
        if not self._pool.traits.terminate:
            raise CommandRefused(self._cannot("end a running task", "terminate"))
        if job is self._inflight.inline_job:
            self.afterwards.append(lambda: self._end_inline(job, signum))
            return True
        return job.handle is not None and self._end(job, job.handle, signum)

    def _end(self, job: Job, handle: Any, signum: int) -> bool:
        job.revoked, job.signum = True, signum
        try:
            ended = self._pool.terminate_job(handle, signum)
        except PoolError:
            job.revoked = False
            raise
        job.revoked = ended
        return ended

    def _end_inline(self, job: Job, signum: int) -> None:
        """The task of a solo worker ends with its process: the reply must be sent first."""
        handle = job.handle or getattr(self._pool, "current", None)
        if handle is not None and job is self._inflight.inline_job:
            self._end(job, handle, signum)

    def rate_limit(self, task_name: str, rate_limit: Any = None, **_: Any) -> Reply:
        """Limit starts of this task in this worker, like ``10/m``; 0 or nothing removes the limit."""
        self._check_task(task_name)
        try:
            rate = rate_limits.per_second(rate_limit)
        except ValueError as error:
            raise CommandRefused(str(error)) from error
        self._do(lambda: self._settings.set_rate_limit(task_name, rate))
        self._remote.set_rate_limit(task_name, rate_limit if rate else None)
        return {"ok": "new rate limit set successfully" if rate else "rate limit disabled successfully"}

    def time_limit(self, task_name: Any = None, hard: Any = None, soft: Any = None, **_: Any) -> Reply:
        """Time limits of one task, for runs that start from now on."""
        self._check_task(task_name)
        for seconds, capability, what in (
            (soft, "soft_limit", "keep a soft time limit"),
            (hard, "hard_limit", "keep a hard time limit"),
        ):
            if seconds and not getattr(self._pool.traits, capability):
                raise CommandRefused(self._cannot(what, capability))
        soft_seconds, hard_seconds = _seconds(soft), _seconds(hard)
        self._do(
            lambda: self._settings.set_time_limits(task_name, soft_seconds=soft_seconds, hard_seconds=hard_seconds)
        )
        return {"ok": "time limits set successfully"}

    # -- slots

    def pool_grow(self, n: Any = 1, **_: Any) -> Reply:
        """More slots."""
        self._resize(_count(n))
        return {"ok": "pool will grow"}

    def pool_shrink(self, n: Any = 1, **_: Any) -> Reply:
        """Fewer slots: free ones first, busy ones after their task."""
        self._resize(-_count(n))
        return {"ok": "pool will shrink"}

    def _resize(self, by: int) -> None:
        self._check_resize()
        if self._settings.autoscaler is not None:
            raise CommandRefused("the slots follow autoscale: change its bounds instead")
        slots = self._pool.limit + by
        if by > 0 and slots > self._most_slots:
            raise CommandRefused(f"{slots} slots are more than the {self._most_slots} that a command may ask for")
        if slots < 1:
            raise CommandRefused(f"at least one of the {self._pool.limit} slots must stay")
        self._do(lambda: self._settings.set_slots(slots))

    def pool_restart(self, **_: Any) -> Reply:
        """Fresh processes for all slots, each after its task. Changed code of the app needs a restart of the worker."""
        self._do(self._pool.restart)
        return {"ok": "reload started"}

    def autoscale(self, max: Any = None, min: Any = None, **_: Any) -> Reply:
        """Let the slots follow the work between these bounds, until the next apply."""
        self._check_resize()
        scaler = self._settings.autoscaler
        known = scaler.bounds if scaler is not None else Bounds(1, self._pool.limit)
        bounds = Bounds(known.least if min is None else _count(min), known.most if max is None else _count(max))
        if bounds.most > self._most_slots:
            message = f"max={bounds.most} is more than the {self._most_slots} slots that a command may ask for"
            raise CommandRefused(message)
        if bounds.least > bounds.most:
            raise CommandRefused(f"min={bounds.least} is more than max={bounds.most}")
        self._do(lambda: self._settings.autoscale(bounds))
        return {"ok": f"autoscale now max={bounds.most} min={bounds.least}"}

    # -- queues

    def add_consumer(
        self, queue: str, exchange: Any = None, exchange_type: Any = None, routing_key: Any = None, **_: Any
    ) -> Reply:
        """Consume one more queue. Where the app does not define it, it is bound to this exchange."""
        _check_queue(queue)
        if len(self._settings.queues) >= MOST_QUEUES:
            raise CommandRefused(f"this worker consumes {MOST_QUEUES} queues already")
        queues = self._settings.queues
        if any(known.name == queue for known in queues):
            return {"ok": f"already consuming from {queue}"}
        if exchange or exchange_type or routing_key:
            self._remote.define_queue(
                queue,
                exchange=str(exchange or queue),
                exchange_type=str(exchange_type or "direct"),
                routing_key=str(routing_key or queue),
            )
        self._do(lambda: self._settings.set_queues((*self._settings.queues, QueueSpec(queue))))
        return {"ok": f"add consumer {queue}"}

    def cancel_consumer(self, queue: str, **_: Any) -> Reply:
        """Consume this queue no more; what was fetched from it and has not started goes back."""
        left = tuple(known for known in self._settings.queues if known.name != queue)
        self._do(lambda: self._settings.set_queues(left))
        return {"ok": f"no longer consuming from {queue}"}

    # -- the worker

    def hello(self, from_node: Any = "", revoked: Any = None, **_: Any) -> Reply:
        """A worker of Celery's has started: each learns what the other knows as revoked."""
        if from_node == self._node:
            return None
        if told := told_ids(revoked):
            self._do(lambda: self._revoked.add(told))
        return {"revoked": self._revoked.ids(), "clock": self._remote.clock.forward()}

    def election(self, **_: Any) -> Reply:
        """Nothing, as a worker of Celery's without gossip."""
        return None

    def shutdown(self, **_: Any) -> Reply:
        """A warm stop. The supervisor starts the replica again unless the manifest says otherwise."""
        log.warning("shutdown asked for by remote control")
        self.afterwards.append(lambda: os.kill(os.getpid(), signals.SIGTERM))
        return {"ok": "stopping"}

    def enable_events(self, **_: Any) -> Reply:
        """Send events about tasks."""
        fresh = self._do(lambda: self._events.switch(on=True))
        if fresh:
            self._events.beat_soon()
        return {"ok": "task events enabled" if fresh else "task events already enabled"}

    def disable_events(self, **_: Any) -> Reply:
        """Send none."""
        changed = self._do(lambda: self._events.switch(on=False))
        return {"ok": "task events disabled" if changed else "task events already disabled"}

    def heartbeat(self, **_: Any) -> Reply:
        """Send a heartbeat event now."""
        self._events.beat_soon()
        return {"ok": "heartbeat"}

    # -- checks

    def _check_task(self, name: Any) -> None:
        if not isinstance(name, str) or not self._application.knows(name):
            raise CommandRefused("unknown task")

    def _check_resize(self) -> None:
        if not self._pool.traits.resize:
            raise CommandRefused(self._cannot("change its number of slots", "resize"))

    def _cannot(self, what: str, capability: str) -> str:
        able = ", ".join(sorted(row.name for row in TRAITS.values() if getattr(row, capability)))
        return f"the {self._pool.name} pool cannot {what}; pools that can: {able}"


def table(inspection: Inspection, commands: Commands) -> Mapping[str, Answer]:
    """Every command by its name and by its old name."""
    found: dict[str, Answer] = {name: getattr(inspection, name) for name in QUESTIONS}
    found |= {name: getattr(commands, name) for name in ORDERS}
    return found | {old: found[name] for old, name in OLD_NAMES.items()}


QUESTIONS = (
    "ping",
    "clock",
    "report",
    "conf",
    "query_task",
    "stats",
    "active",
    "reserved",
    "scheduled",
    "registered",
    "revoked",
    "active_queues",
    "memsample",
)
ORDERS = (
    "revoke",
    "revoke_by_stamped_headers",
    "terminate",
    "rate_limit",
    "time_limit",
    "pool_grow",
    "pool_shrink",
    "pool_restart",
    "autoscale",
    "add_consumer",
    "cancel_consumer",
    "hello",
    "election",
    "shutdown",
    "enable_events",
    "disable_events",
    "heartbeat",
)
OLD_NAMES = {
    "dump_conf": "conf",
    "dump_active": "active",
    "dump_reserved": "reserved",
    "dump_schedule": "scheduled",
    "dump_tasks": "registered",
    "dump_revoked": "revoked",
}


def with_old_names(names: Iterable[str]) -> set[str]:
    """These commands, and the other names of each."""
    found = {OLD_NAMES.get(name, name) for name in names}
    return found | {old for old, name in OLD_NAMES.items() if name in found}


def answered(answer: Answer, arguments: Mapping[str, Any]) -> Reply:
    """The reply, also when the command cannot be done."""
    try:
        return answer(**arguments)
    except PoolError as error:
        return {"error": f"{error}; {error.hint}" if error.hint else str(error)}
    except (CommandRefused, FleetError, ValueError, TimeoutError) as error:
        return {"error": str(error)}
    except TypeError as error:
        return {"error": f"these arguments do not fit: {error}"}
    except Exception as error:
        log.exception("a control command failed")
        return {"error": repr(error)}


def _can_end(job: Job) -> bool:
    return bool(job.started_at) and not job.settled and job.ending is None


def _check_queue(name: Any) -> None:
    if not isinstance(name, str) or not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise CommandRefused(f"{shown(name)} is not the name of a queue: a text of up to {LONGEST_NAME} characters")


def _ids(value: Any) -> list[str]:
    ids = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else None
    if ids is None or not all(isinstance(one, str) and len(one) <= LONGEST_NAME for one in ids):
        raise CommandRefused(f"ids of tasks are texts of up to {LONGEST_NAME} characters, one or a list of them")
    if len(ids) > MOST_IDS:
        raise CommandRefused(f"{len(ids)} ids at once are more than {MOST_IDS}: send them in parts")
    return ids


def _stamps(headers: Any) -> dict[str, Any]:
    if isinstance(headers, Mapping):
        return {str(header): stamps for header, stamps in headers.items()}
    found: dict[str, Any] = {}
    for text in _ids(headers):
        header, equals, stamp = text.partition("=")
        if not equals:
            raise CommandRefused(f"{text!r} is no stamp: write header=stamp")
        found.setdefault(header, []).append(stamp)
    return found


def _count(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise CommandRefused(f"{value!r} is not a whole number")
    count = int(value)
    if count < 1:
        raise CommandRefused(f"{value!r} is not a number of slots: it is at least 1")
    return count


def _seconds(value: Any) -> float | None:
    seconds = float(value) if value else 0.0
    if not 0 <= seconds <= LONGEST_LIMIT_SECONDS:
        raise CommandRefused(f"{value!r} is not a time limit: it is more than 0 seconds")
    return seconds or None


def _signal_number(value: Any) -> int:
    """``KILL``, ``SIGKILL`` or 9; TERM where nothing is said."""
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        return int(value)
    name = str(value or "TERM").upper()
    found = getattr(signals, name if name.startswith("SIG") else f"SIG{name}", None)
    if not isinstance(found, signals.Signals):
        raise CommandRefused(f"there is no signal {value!r}")
    return int(found)
