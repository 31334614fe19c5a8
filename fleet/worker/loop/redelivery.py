"""Ends of tasks, remembered for messages that a broken connection brings again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from fleet.broker.channels.base import Channel
from fleet.worker.task.call import Outcome
from fleet.worker.task.job import Job, Key

REMEMBERED = 512
"""How many ends are remembered."""

ALREADY_TOLD = Outcome("ignored")
"""For a message that comes again after it was acknowledged: only the acknowledgement is repeated."""

Ends = OrderedDict[Key, Outcome]


class Redelivery:
    """recent: the last ends of all.  doubtful: those of which the broker may not know, so that their messages may come
    again.  connection_number: how many connections there were before this one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._recent: Ends = OrderedDict()
        self._doubtful: Ends = OrderedDict()
        self.connection_number = 0

    def is_ours(self, job: Job) -> bool:
        """Whether the message is still ours. After a broken connection the broker may have delivered it again."""
        return job.acked or job.connection_number == self.connection_number or self._channel.holds(job.delivery)

    def note_end(self, job: Job, outcome: Outcome) -> bool:
        """Remember an end; whether to tell the broker now. What is not ours is acknowledged when it comes again."""
        _remember(self._recent, job.key, outcome)
        if not self.is_ours(job):
            self.doubt(job, outcome)
            return False
        if job.connection_number != self.connection_number:
            self.doubt(job, ALREADY_TOLD)
        return True

    def doubt(self, job: Job, outcome: Outcome) -> None:
        """The broker may not know of this end."""
        _remember(self._doubtful, job.key, outcome)

    def pop_doubtful(self, job: Job) -> Outcome | None:
        """How the task of this message ended before, where the broker may not know."""
        return self._doubtful.pop(job.key, None)

    def on_lost(self) -> None:
        """The last acknowledgements may not have reached the broker. What is known to be owed stays so."""
        for key in self._recent:
            if key not in self._doubtful:
                _remember(self._doubtful, key, ALREADY_TOLD)

    def on_restored(self, gone: Sequence[Job]) -> None:
        """There is a connection again. gone: jobs whose end was still to be sent and whose messages are not ours."""
        self.connection_number += 1
        for job in gone:
            outcome = self._recent.get(job.key)
            if job.settled and outcome is not None:
                self.doubt(job, outcome)
        self.on_lost()  # what ended while there was no connection, its message acknowledged just before


def _remember(ends: Ends, key: Key, outcome: Outcome) -> None:
    ends[key] = outcome
    if len(ends) > REMEMBERED:
        ends.popitem(last=False)
