"""Ends of tasks over broken connections: which are told now, and which when their message comes again."""

from __future__ import annotations

from fleet.broker.delivery import Delivery
from fleet.worker.loop.redelivery import ALREADY_TOLD, REMEMBERED, Redelivery
from fleet.worker.task.call import Call, Outcome, TaskPolicy
from fleet.worker.task.job import Job
from tests.worker.loop.test_consumer import MemoryChannel

DONE = Outcome("success")


def job(number: int, *, connection_number: int = 0, acked: bool = False) -> Job:
    call = Call(f"id{number}", "t", {}, b"")
    made = Job(Delivery(str(number), "q", b""), None, call, TaskPolicy(), (call.id, 0), acked=acked)
    made.connection_number = connection_number
    return made


def test_an_end_on_the_connection_of_its_message_is_told_and_nothing_is_doubtful() -> None:
    ends = Redelivery(MemoryChannel())
    assert ends.note_end(job(1), DONE)
    assert ends.pop_doubtful(job(1)) is None


def test_an_end_that_was_told_just_before_a_loss_is_acknowledged_again_once() -> None:
    ends = Redelivery(MemoryChannel())
    ends.note_end(job(1), DONE)
    ends.on_lost()
    assert ends.pop_doubtful(job(1)) is ALREADY_TOLD
    assert ends.pop_doubtful(job(1)) is None


def test_an_end_whose_message_is_no_longer_ours_is_told_in_full_when_it_comes_again() -> None:
    ends = Redelivery(MemoryChannel())
    ends.on_restored([])
    assert not ends.note_end(job(1), DONE)
    ends.on_lost()
    assert ends.pop_doubtful(job(1)) is DONE


def test_a_message_that_the_channel_still_holds_is_told_and_may_come_again_all_the_same() -> None:
    channel = MemoryChannel()
    ends, kept = Redelivery(channel), job(1)
    channel.held[kept.delivery.tag] = kept.delivery
    ends.on_restored([])
    assert ends.note_end(kept, DONE)
    assert ends.pop_doubtful(kept) is ALREADY_TOLD


def test_what_was_owed_for_a_message_that_is_gone_waits_for_it() -> None:
    ends, gone = Redelivery(MemoryChannel()), job(1)
    ends.note_end(gone, DONE)
    gone.settled = True
    ends.on_restored([gone])
    assert ends.pop_doubtful(gone) is DONE


def test_only_the_last_ends_are_remembered() -> None:
    ends = Redelivery(MemoryChannel())
    for number in range(REMEMBERED + 1):
        ends.note_end(job(number), DONE)
    ends.on_lost()
    assert ends.pop_doubtful(job(0)) is None
    assert ends.pop_doubtful(job(REMEMBERED)) is ALREADY_TOLD
