"""What every replica of a fleet has done in all its processes: its counters, and the record of the last one."""

from __future__ import annotations

from collections.abc import Collection

from fleet.core.desired import is_replica
from fleet.core.totals import Totals
from fleet.replica import record as records
from fleet.replica.counters import counters_file, read_counters
from fleet.state.paths import Places


def read_totals(places: Places) -> dict[str, Totals]:
    """Replica -> totals, also of replicas that are gone."""
    counted = {path.stem for path in places.counters.glob("*.json")}
    names = counted | {path.stem for path in places.records.glob("*.rec")}
    accounts = places.account_uids()
    return {name: _of_one(places, name, accounts) for name in sorted(names) if is_replica(name)}


def _of_one(places: Places, name: str, accounts: Collection[int]) -> Totals:
    counters = read_counters(counters_file(places.counters, name))
    return counters.with_record(records.read(places.record_file(name, accounts=accounts))).totals
