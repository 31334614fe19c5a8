"""What a worker writes into its record is what others read: also while it changes, and after a move."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.replica import record as records
from fleet.replica.process_identity import started_ticks
from fleet.replica.record import AWAITED_OFFSET, Record, RecordView, expect_none, read, set_hold
from fleet.worker.celery_member.include import fleet_celery_member
from tests.conftest import eventually


class Clock:
    """Time that stands still until it is told to go on."""

    now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(records, "time", made)
    return made


@pytest.fixture
def record(tmp_path: Path, clock: Clock) -> Iterator[Record]:
    made = Record(tmp_path / "thumbs.0.rec", digest="9f31c2ab", slots=2)
    yield made
    made.close()


def view(record: Record) -> RecordView:
    found = read(record.path)
    assert found is not None
    return found


def test_a_fresh_record_names_its_process_for_ever(record: Record) -> None:
    found = view(record)

    assert (found.pid, found.started_ticks) == (os.getpid(), started_ticks(os.getpid()))
    assert (found.state, found.state_at, found.freed_at, found.consumed_at) == ("starting", 1000.0, 0.0, 0.0)
    assert (found.foreign, found.sated, found.line_up, found.tasks) == (False, False, False, ())


def test_a_launcher_s_record_is_awaited_until_the_program_says_that_it_writes_none(tmp_path: Path) -> None:
    path = tmp_path / "shop.0.rec"
    launcher = Record(path, digest="9f31c2ab", slots=2, foreign=True, awaited=True)
    assert (view(launcher).awaited, view(launcher).foreign) == (True, True)

    assert expect_none(path)
    assert (view(launcher).awaited, view(launcher).foreign) == (False, True)
    launcher.close()

    Record(path, digest="9f31c2ab", slots=2).close()
    own = read(path)
    assert own is not None
    assert (own.awaited, own.foreign) == (False, False)
    assert not expect_none(tmp_path / "none.rec")


def test_the_module_that_celery_imports_knows_the_layout() -> None:
    """It writes that byte itself, because it may run where fleet cannot be imported."""
    assert fleet_celery_member.AWAITED_OFFSET == AWAITED_OFFSET


def test_facts_of_the_moment_are_published_with_the_next_beat(record: Record, clock: Clock) -> None:
    record.line_up, record.sated, record.consumed_at, record.live = True, True, 1001.0, "abcd"
    assert not view(record).line_up
    clock.now = 1002.0
    record.beat()
    found = view(record)

    assert (found.line_up, found.sated, found.consumed_at, found.live) == (True, True, 1001.0, "abcd")
    assert found.heartbeat_at == 1002.0


def test_the_age_of_a_state_does_not_depend_on_how_often_it_is_said(record: Record, clock: Clock) -> None:
    clock.now = 1001.0
    record.become("ready")
    clock.now = 1005.0
    record.become("ready", "all well")

    assert (view(record).state_at, view(record).heartbeat_at, view(record).note) == (1001.0, 1005.0, "all well")


def test_slots_tell_their_task_and_then_when_it_left(record: Record, clock: Clock) -> None:
    record.begin(0, task_id="id-1", task_name="shop.thumb", until=1060.0, pid=7)
    clock.now = 1003.0
    record.begin(1, task_id="id-2", task_name="shop.thumb")
    record.end(1)
    clock.now = 1009.0
    [task] = view(record).tasks

    assert (task.index, task.pid, task.task_id, task.since, task.until) == (0, 7, "id-1", 1000.0, 1060.0)
    assert view(record).freed_at == 1003.0
    record.end(0)
    assert (view(record).tasks, view(record).freed_at) == ((), 1009.0)


def test_more_slots_move_the_record_with_all_it_tells(record: Record, clock: Clock) -> None:
    record.begin(1, task_id="id-1", task_name="shop.thumb")
    set_hold(record.path, on=True)
    before = view(record)
    record.resize(5)
    record.begin(4, task_id="id-2", task_name="shop.thumb")
    found = view(record)

    assert (found.slots, found.hold, record.hold, found.started_ticks) == (5, True, True, before.started_ticks)
    assert [task.task_id for task in found.tasks] == ["id-1", "id-2"]


def test_slots_add_up_what_was_spent_in_them(record: Record, clock: Clock) -> None:
    record.begin(0, task_id="id-1", task_name="shop.thumb")
    clock.now = 1004.0
    record.begin(1, task_id="id-2", task_name="shop.thumb")
    record.begin(0, task_id="id-1", task_name="shop.thumb", pid=7)
    assert [(task.since, task.pid) for task in view(record).tasks] == [(1000.0, 7), (1004.0, 0)]
    assert view(record).busy_seconds == 0.0
    clock.now = 1006.5
    record.end(0)
    record.end(1)
    record.end(1)
    record.begin(0, task_id="id-3", task_name="shop.thumb")
    clock.now = 1007.0

    assert view(record).busy_seconds == 9.0
    record.end(0)
    assert view(record).busy_seconds == 9.5


def test_a_clock_that_is_set_back_takes_nothing_back(record: Record, clock: Clock) -> None:
    record.begin(0, task_id="id-1", task_name="shop.thumb")
    clock.now = 900.0
    record.end(0)

    assert view(record).busy_seconds == 0.0


def test_a_worker_that_never_rests_still_publishes_what_it_has_done(record: Record) -> None:
    record.begin(0, task_id="id-1", task_name="shop.thumb")
    record.end(0)
    record.processed += 1
    assert view(record).processed == 0
    record.begin(1, task_id="id-2", task_name="shop.thumb")

    assert view(record).processed == 1


def test_what_waits_in_a_worker_is_reserved_with_what_runs(record: Record) -> None:
    record.begin(0, task_id="id-1", task_name="shop.thumb")
    record.waiting = 3
    record.beat()

    assert (view(record).busy, view(record).waiting, view(record).reserved) == (1, 3, 4)


def test_another_size_keeps_what_was_counted(record: Record, clock: Clock) -> None:
    record.begin(0, task_id="id-1", task_name="shop.thumb")
    record.begin(1, task_id="id-2", task_name="shop.thumb")
    clock.now = 1002.0
    record.end(0)
    record.processed, record.waiting = 1, 2
    record.resize(4)
    assert (view(record).busy_seconds, view(record).processed, view(record).reserved) == (2.0, 1, 3)
    record.resize(1)
    clock.now = 1005.0
    record.end(1)

    assert (view(record).busy_seconds, view(record).slots) == (7.0, 1), "a slot beyond the new size had its task still"


def test_nothing_counted_ever_goes_back_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.rec"
    writer = os.fork()
    if writer == 0:
        work_for_ever(path)
    try:
        while read(path) is None:
            os.sched_yield()
        earlier = (0, 0.0)

        def seen() -> tuple[float, RecordView] | None:
            now = time.time()
            found = read(path)  # nothing where the writer was put aside in the middle of a write
            return None if found is None else (now, found)

        for _ in range(5000):
            moment = eventually(seen)
            assert moment is not None
            now, found = moment
            busy_seconds = found.busy_seconds + sum(max(0.0, now - task.since) for task in found.tasks)
            assert found.processed >= earlier[0]
            assert busy_seconds >= earlier[1] - 1e-6
            earlier = (found.processed, busy_seconds)
        assert min(earlier) > 0
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


def work_for_ever(path: Path) -> None:
    """Tasks that come and go, in slots that become more and less. Does not return."""
    record = Record(path, digest="d", slots=2)
    while True:
        for slots in (2, 3, 4):
            record.resize(slots)
            for slot in range(slots):
                record.begin(slot, task_id="id", task_name="shop.thumb")
            for slot in range(slots):
                record.end(slot)
                record.processed += 1
        record.beat()
        os.sched_yield()  # on a machine with much else to do, rather here than in the middle of a write


def test_a_launchers_word_is_told_from_a_workers_own(tmp_path: Path) -> None:
    path = tmp_path / "clock.0.rec"
    Record(path, digest="d", slots=0, foreign=True).become("ready")
    found = read(path)

    assert found is not None
    assert (found.foreign, found.state) == (True, "ready")
    Record(path, digest="d", slots=1).close()
    own = read(path)
    assert own is not None
    assert not own.foreign, "the worker has taken its record over"


def test_a_record_of_an_older_layout_is_none_but_its_hold_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.rec"
    older = bytearray(b"FLTREC1\0" + bytes(504))
    older[250] = 1
    path.write_bytes(older)
    assert read(path) is None

    made = Record(path, digest="d", slots=1)
    assert view(made).hold
    made.close()


@pytest.mark.parametrize("content", [b"", records.MAGIC, b"x" * 512, b"FLTREC1\0" + bytes(504)])
def test_what_is_no_record_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thumbs.0.rec"
    path.write_bytes(content)

    assert read(path) is None
    assert read(tmp_path / "nowhere.rec") is None


def test_a_record_that_somebody_deleted_is_there_again_at_the_next_beat(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.rec"
    record = Record(path, digest="9f31c2ab", slots=2)
    record.become("ready")
    record.begin(1, task_id="id-1", task_name="shop.thumb")
    set_hold(path, on=True)
    path.unlink()
    record.beat()

    again = read(path)
    assert again is not None
    assert (again.state, again.hold, [task.task_id for task in again.tasks]) == ("ready", True, ["id-1"])
    record.end(1)
    record.beat()
    emptied = read(path)
    assert emptied is not None
    assert not emptied.tasks
    record.close()


def shortened(path: Path) -> None:
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    path.write_bytes(b"\xff\x01{" * 50)


def overwritten_whole(path: Path) -> None:
    path.write_bytes(b"\x01" * path.stat().st_size)


def replaced(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(b"\xff\x01{" * 5000)
    other.replace(path)


@pytest.mark.parametrize("damage", [Path.unlink, shortened, overwritten, overwritten_whole, replaced])
@pytest.mark.parametrize("held", [True, False])
def test_a_record_that_somebody_damaged_is_whole_again_at_the_next_beat(
    tmp_path: Path, clock: Clock, damage: Callable[[Path], None], held: bool
) -> None:
    path = tmp_path / "thumbs.0.rec"
    record = Record(path, digest="9f31c2ab", slots=20)
    record.become("ready")
    record.begin(19, task_id="id-0", task_name="shop.thumb")
    clock.now = 1004.0
    record.end(19)
    record.begin(1, task_id="id-1", task_name="shop.thumb", until=2000.0, pid=7)
    set_hold(path, on=held)
    assert record.hold is held
    record.beat()
    before = view(record)
    damage(path)
    assert record.hold is held
    record.beat()

    assert view(record) == before
    set_hold(path, on=not held)
    assert record.hold is not held
    assert not list(tmp_path.glob(".*"))
    record.close()


def test_a_record_has_its_space_on_the_disk_before_anything_is_written_to_it(tmp_path: Path) -> None:
    """A mapped file without it ends its process at the first write to a page when the disk is full."""
    record = Record(tmp_path / "thumbs.0.rec", digest="9f31c2ab", slots=100)

    assert record.path is not None
    assert record.path.stat().st_blocks * 512 >= record.path.stat().st_size
    record.close()


def test_on_a_full_disk_a_record_stays_in_memory_until_there_is_space(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.rec"
    record = Record(path, digest="9f31c2ab", slots=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        record.resize(50)
        record.begin(49, task_id="id-1", task_name="shop.thumb")
        path.unlink()
        record.become("ready")
        assert read(path) is None
        assert not list(tmp_path.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    record.beat()

    found = view(record)
    assert (found.state, found.slots, [task.task_id for task in found.tasks]) == ("ready", 50, ["id-1"])
    record.close()
