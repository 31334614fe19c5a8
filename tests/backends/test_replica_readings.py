"""What is kept of replicas' files from one observation to the next is what a first reading would find."""

from __future__ import annotations

import shutil
from pathlib import Path

from fleet.backends.supervisor.replica_readings import ReplicaReadings
from fleet.replica.crash_history import History, Life, write_history
from fleet.replica.record import Record, RecordView
from fleet.state.paths import Places

CRASH = Life(1.0, 2.0)


def places_in(tmp_path: Path) -> Places:
    places = Places(tmp_path / "shop")
    places.records.mkdir(parents=True)
    return places


def read(readings: ReplicaReadings, *, accounts: tuple[int, ...] = ()) -> tuple[RecordView | None, tuple[Life, ...]]:
    """What an observation reads of one replica."""
    readings.begin({"thumbs.0"}, accounts=accounts)
    return readings.files("thumbs.0")


def test_a_crash_history_is_read_again_when_it_is_another_one(tmp_path: Path) -> None:
    places = places_in(tmp_path)
    readings = ReplicaReadings(places)
    for count in (0, 1, 1, 2, 0, 1):
        if count:
            write_history(places.starts_file("thumbs.0"), History((CRASH,) * count, 3.0))
        else:
            places.starts_file("thumbs.0").unlink(missing_ok=True)
        for _ in range(2):
            assert read(readings) == (None, (CRASH,) * count)


def test_a_record_is_read_each_time(tmp_path: Path) -> None:
    places = places_in(tmp_path)
    record, readings = Record(places.record_file("thumbs.0"), digest="d", slots=1), ReplicaReadings(places)
    for name in ("shop.thumb", "shop.zip"):
        record.begin(0, task_id="id", task_name=name)
        view, _ = read(readings)
        assert view is not None
        assert [task.task_name for task in view.tasks] == [name]
        record.end(0)
    record.close()


def test_a_replica_that_moves_to_an_account_and_back_is_found(tmp_path: Path) -> None:
    places = places_in(tmp_path)
    readings, own = ReplicaReadings(places), places.records / "thumbs.0.starts"
    theirs = places.account_records(65534) / "thumbs.0.starts"
    theirs.parent.mkdir(parents=True)
    write_history(own, History((CRASH,), 3.0))
    assert read(readings) == (None, (CRASH,))
    write_history(theirs, History((CRASH, CRASH), 3.0))
    assert read(readings, accounts=(65534,)) == (None, (CRASH, CRASH))
    theirs.unlink()
    assert read(readings, accounts=(65534,)) == (None, (CRASH,))
    write_history(theirs, History((CRASH, CRASH), 3.0))
    assert read(readings, accounts=(65534,)) == (None, (CRASH, CRASH))
    shutil.rmtree(places.accounts)
    assert read(readings) == (None, (CRASH,))


def test_what_is_gone_is_forgotten_and_read_when_it_is_back(tmp_path: Path) -> None:
    places = places_in(tmp_path)
    readings = ReplicaReadings(places)
    for name in ("a.0", "a.1", "a.2"):
        write_history(places.starts_file(name), History((CRASH,), 3.0))
        readings.files(name)
    readings.begin({"a.1"}, accounts=())
    assert list(readings._files) == ["a.1"]
    assert list(readings._lives) == [places.starts_file("a.1")]
    assert readings.files("a.0") == (None, (CRASH,))
