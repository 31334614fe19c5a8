"""Leaving in the middle of a task that nothing but the end of its process can end, with everything told before."""

from __future__ import annotations

import faulthandler
import logging
import os
import time
from typing import TYPE_CHECKING

from fleet.worker.call import Ending
from fleet.worker.lifecycle import EXIT_REPLACE
from pools.handle import Handle

if TYPE_CHECKING:
    from fleet.worker.consumer import Consumer
    from fleet.worker.job import Job

log = logging.getLogger("fleet.worker")


def on_hard_limit(consumer: Consumer, handle: Handle) -> None:
    """From the pool's watchdog: the solo task is over its limit."""
    _replace(consumer, handle, "timeout", f"hard time limit of {handle.timeout_seconds:g} s")


def on_terminate_job(consumer: Consumer, handle: Handle) -> None:
    """From remote control, in the housekeeping thread: the running solo task is to be ended."""
    _replace(consumer, handle, "terminated", "terminated on request")


def on_blocked(consumer: Consumer, handle: Handle) -> None:
    """From a green pool's native thread: the process stands still inside a task that nothing can end. Does not return.

    Nothing of the patched library may be used here: no socket, no lock, no logging. So the broker is told nothing and
    finds out by itself. RabbitMQ delivers again what this process held, on Redis the next process of this replica
    takes it back. What was acknowledged early is lost, as in a crash. The record is left as a crash leaves it, with
    the guilty task alone, so that the launcher counts this death against that task.
    """
    names = [f"{job.call.name}[{job.call.id}]" for job in list(consumer.running) if job.handle is handle]
    name, others = names[0] if names else handle.id, max(0, len(consumer.running) - 1)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"Task {name} blocks the whole process past its limits; it is replaced, with {others} other tasks in it"
    os.write(2, f"{now} ERROR {consumer.options.replica}[{os.getpid()}] {text}\n".encode())
    faulthandler.dump_traceback(file=2, all_threads=True)
    for job in list(consumer.running):
        if job.handle is not handle and job.slot >= 0:
            consumer.record.end(job.slot)
    consumer.record.become("draining", f"replaced: {name} blocked it")
    end_descendants()
    os._exit(EXIT_REPLACE)


def give_up_process(consumer: Consumer, code: int) -> None:
    """Give back what runs, tell the broker, clean up, and go. Does not return."""
    consumer.give_back_running()
    consumer.settlement.flush()
    consumer.channel.close()
    consumer.record.become("stopped", "replaced" if code == EXIT_REPLACE else "cut")
    for farewell in consumer.on_exit:
        farewell()
    logging.shutdown()
    # Last: a task whose child is killed returns, and must find no time to record a second end.
    end_descendants()
    os._exit(code)


def _replace(consumer: Consumer, handle: Handle, ending: Ending, detail: str) -> None:
    with consumer.channel.lock:
        job = consumer.inline_job
        if job is None or handle.done:
            return
        job.ending, job.detail = ending, detail
        log.error("Task %s[%s] ended: %s; this process is replaced", job.call.name, job.call.id, detail)
        record_end(consumer, job, ending)
        consumer.completion.conclude(job, consumer.application.after_end(job.call, ending, detail))
        give_up_process(consumer, EXIT_REPLACE)


def record_end(consumer: Consumer, job: Job, ending: Ending) -> None:
    """Let whoever waits for the result know, here and now. Errors are logged: the process is about to go."""
    try:
        consumer.application.record_end(job.call, ending, job.detail)
    except Exception:
        log.exception("the end of task %s[%s] could not be recorded", job.call.name, job.call.id)


def end_descendants() -> None:
    """Processes that a task started must not outlive it."""
    import psutil  # not at the top: every worker would pay for it at its start, and hardly one needs it

    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.Error:
            continue
