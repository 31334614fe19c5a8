"""Whether a fleet's folder can be trusted: nobody but this account and root can change what is in it."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.file_access import Fault, fault_of_own, faults_above, faults_within, refuse
from fleet.state.paths import Places


def check(places: Places) -> None:
    """Raise Refused for a folder that another account owns, can write to, or can replace."""
    refuse([*faults_above(places.root.parent), *faults_within(places.root, places.folders)])


def faults(places: Places) -> list[Fault]:
    """Everything that makes a fleet's folder unfit, its files included."""
    return [
        *faults_above(places.root.parent),
        *faults_within(places.root, places.folders),
        *_faults_of_files(places),
    ]


def _faults_of_files(places: Places) -> Iterator[Fault]:
    for folder in (places.run, places.state, places.counters, places.conf_d, places.specs, places.records):
        try:
            paths = sorted(folder.iterdir())
        except OSError:
            continue
        for path in paths:
            if path in places.folders or path in (places.socket, places.broker_socket):
                continue
            try:
                facts = path.lstat()
            except OSError:
                continue
            is_folder = path in (places.revisions, places.broker_data, places.counters)
            if (fault := fault_of_own(path, facts, folder=is_folder)) is not None:
                yield fault
