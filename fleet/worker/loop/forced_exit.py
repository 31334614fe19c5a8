"""Ends the process during a task that nothing else can end, after everything was acknowledged or handed back."""

from __future__ import annotations

import faulthandler
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress

from fleet.broker.channels.base import Channel
from fleet.replica.record import Record
from fleet.worker.lifecycle import EXIT_DONE, EXIT_REPLACE
from fleet.worker.loop.completion import Completion
from fleet.worker.loop.handing_back import HandingBack
from fleet.worker.loop.inflight import InFlight
from fleet.worker.loop.settlement import Settlement
from fleet.worker.task.call import Ending
from pools.handle import Handle

log = logging.getLogger("fleet.worker")


class ForcedExit:
    """Ends this process. ``on_exit``: what is called before, without waiting for long."""

    def __init__(
        self,
        replica: str,
        *,
        channel: Channel,
        record: Record,
        inflight: InFlight,
        settlement: Settlement,
        completion: Completion,
        handing_back: HandingBack,
    ) -> None:
        self._replica = replica
        self._channel = channel
        self._record = record
        self._inflight = inflight
        self._settlement = settlement
        self._completion = completion
        self._handing_back = handing_back
        self.on_exit: list[Callable[[], object]] = []

    def on_hard_limit(self, handle: Handle) -> None:
        """From the pool's watchdog: the solo task is over its limit."""
        self._replace(handle, "timeout", f"hard time limit of {handle.timeout_seconds:g} s")

    def on_terminate_job(self, handle: Handle) -> None:
        """From remote control, in the housekeeping thread: the running solo task is to be ended."""
        self._replace(handle, "terminated", "terminated on request")

    def on_blocked(self, handle: Handle) -> None:
        """From a green pool's native thread: a task that nothing can end blocks the process. Does not return.

        Nothing of the patched library may be used here: no socket, no lock, no logging. So the broker is told nothing
        and notices by itself. RabbitMQ delivers again what this process held, on Redis the next process of this
        replica takes it back. What was acknowledged early is lost, as in a crash. The record is left as a crash leaves
        it, with only that task running, so that the launcher counts this death for it.
        """
        running = list(self._inflight.running)
        names = [f"{job.call.name}[{job.call.id}]" for job in running if job.handle is handle]
        name, others = names[0] if names else handle.id, max(0, len(running) - 1)
        text = f"Task {name} blocks the whole process past its limits; it is replaced, with {others} other tasks in it"
        _say(self._replica, text)
        faulthandler.dump_traceback(file=2, all_threads=True)
        for job in running:
            if job.handle is not handle and job.slot >= 0:
                self._record.end(job.slot)
        self._record.become("draining", f"replaced: {name} blocked it")
        end_descendants()
        os._exit(EXIT_REPLACE)

    def at_end_of_stop(self) -> None:
        """From the native thread of a green worker: the time of a stop is over, and its loop does not run.

        Does not return. As little as in ``on_blocked`` may be used. The record tells of no running task, so that the
        stop is not counted as a crash of any.
        """
        running = list(self._inflight.running)
        text = f"the time to stop is over and a task blocks the whole process: it ends, {len(running)} tasks come again"
        _say(self._replica, text)
        faulthandler.dump_traceback(file=2, all_threads=True)
        for job in running:
            if job.slot >= 0:
                self._record.end(job.slot)
        self._record.become("stopped", "cut")
        end_descendants()
        os._exit(EXIT_DONE)

    def without_descriptors(self, text: str) -> None:
        """Nobody can be told anything any more. Does not return.

        The broker finds out by itself, as after a crash: what was not acknowledged comes again.
        """
        with suppress(OSError):
            _say(self._replica, text)
        end_descendants()
        os._exit(EXIT_REPLACE)

    def give_up_process(self, code: int) -> None:
        """Give back what runs, flush, clean up, and exit. Does not return."""
        self._completion.settle_kept(self._inflight)
        self._handing_back.running()
        self._settlement.flush()
        self._channel.close()
        self._record.become("stopped", "replaced" if code == EXIT_REPLACE else "cut")
        for call in self.on_exit:
            call()
        logging.shutdown()
        # Last: a task whose child is killed returns, and must not record a second end.
        end_descendants()
        os._exit(code)

    def _replace(self, handle: Handle, ending: Ending, detail: str) -> None:
        with self._channel.lock:
            job = self._inflight.inline_job
            if job is None or handle.done:
                return
            job.ending, job.detail, job.limit_seconds = ending, detail, handle.timeout_seconds
            log.error("Task %s[%s] ended: %s; this process is replaced", job.call.name, job.call.id, detail)
            self._completion.end_here(job)
            self.give_up_process(EXIT_REPLACE)


def _say(replica: str, text: str) -> None:
    """A line in the log, without the locks of logging."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(2, f"{now} ERROR {replica}[{os.getpid()}] {text}\n".encode())


def end_descendants() -> None:
    """Kill the processes that a task started."""
    import psutil  # not at the top: it would slow every worker's start, and few need it

    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.Error:
            continue
