"""Results that slots left to the worker's process: stored many at once, before anything is acknowledged.

Where tasks follow each other in the main thread, an end may wait for those after it. Until then it is noted where it
outlives the process, so that a killed process repeats what it was running and nothing more.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Sequence

from fleet.broker.channels.base import Channel
from fleet.worker.apps.base import Application
from fleet.worker.task.call import EncodedResult, Outcome
from fleet.worker.task.job import Job
from pools.handle import Handle

log = logging.getLogger("fleet.worker")

Ended = tuple[Job, Handle]


class Unstored:
    """Ends whose results are to be stored. store: what stores many at once; None where slots store all."""

    def __init__(self, application: Application, channel: Channel) -> None:
        self.store = application.result_store()
        self._application = application
        self._ends = channel.ends
        self._kept: list[Ended] = []
        self._noted: set[Job] = set()

    def may_keep(self, seconds: float) -> bool:
        """Whether an end may be kept now: where nothing has been kept for longer than this."""
        if self.store is None:
            return False
        return not self._kept or time.monotonic() - self._kept[0][1].ended_at < seconds

    def keep(self, ended: Sequence[Ended]) -> list[Ended]:
        """Keep those of them that wait for their results alone; the others. Where there is no room to note one: all,
        the kept ones before."""
        others: list[Ended] = []
        for each in ended:
            job, handle = each
            result = _result_of(job, handle)
            if result is None:
                others.append(each)
            elif self._note(job, result):
                self._kept.append(each)
            else:
                return [*self.take(), *ended]
        return others

    def take(self) -> list[Ended]:
        """Those that were kept, in order; they are kept no more."""
        kept, self._kept = self._kept, []
        return kept

    def store_all(self, ended: Sequence[Ended]) -> None:
        """Store the results of these. What fails is left to a slot: ``job.unstored``."""
        if self.store is None:
            return
        found = [(job, handle, result) for job, handle in ended if (result := _result_of(job, handle)) is not None]
        if not found:
            return
        for job, _, result in found:
            if job.acked and job not in self._noted:  # its message does not come again
                self._note(job, result)
        stored = self.store.store([result for _, _, result in found])
        for (job, handle, _), is_stored in zip(found, stored, strict=True):
            job.unstored = None if is_stored else handle.value

    def on_settled(self, ended: Sequence[Ended]) -> None:
        """These are settled, or a slot is to store their results."""
        if not self._noted:
            return
        self._noted.difference_update([job for job, _ in ended if job.unstored is None])
        if not self._noted:
            self._ends.forget_ends()

    def store_left(self, packed: Sequence[bytes]) -> bool:
        """Store what the process before had noted; whether all of it is stored now."""
        try:
            results = [EncodedResult.unpacked(one) for one in packed]
            stored = self.store.store(results) if self.store is not None else [False] * len(results)
            for result, is_stored in zip(results, stored, strict=True):
                if not is_stored:
                    self._application.store_result(result)
        except struct.error:
            return False
        except Exception:
            log.exception("what the process before had finished cannot be stored")
            return False
        return True

    def _note(self, job: Job, result: EncodedResult) -> bool:
        if not self._ends.note_end(job.delivery, result.packed()):
            return False
        self._noted.add(job)
        return True


def _result_of(job: Job, handle: Handle) -> EncodedResult | None:
    """What is left to be stored of a task that is over."""
    outcome = handle.value
    if handle.error is not None or job.settled or job.ending is not None or not isinstance(outcome, Outcome):
        return None
    return outcome.unstored
