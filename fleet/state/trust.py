"""Whether a fleet's folder can be trusted: nobody but this account and root can change what is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fleet.file_access import Fault, fault_of_own, faults_above, faults_within, refuse
from fleet.replica.pod_report import POD_VARIABLE
from fleet.state.paths import Places


def check(places: Places) -> None:
    """Raise Refused for a folder that another account owns, can write to, or can replace."""
    refuse([*_faults_above(places), *faults_within(places.root, _folders(places))])


def faults(places: Places) -> list[Fault]:
    """Everything that makes a fleet's folder unfit, its files included."""
    return [
        *_faults_above(places),
        *faults_within(places.root, _folders(places)),
        *_faults_of_files(places),
    ]


def _faults_above(places: Places) -> list[Fault]:
    """A pod's volumes may be written to by everybody, and nobody else is in it."""
    return [] if POD_VARIABLE in os.environ else faults_above(places.root.parent)


def _folders(places: Places) -> tuple[Path, ...]:
    """All that must be the fleet's own; what belongs to other accounts lies inside of these."""
    specs = [places.account_specs(uid) for uid in places.account_uids()]
    return (*places.folders, places.accounts, *(path.parent for path in specs), *specs)


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
            if path == places.broker_data and facts.st_uid in places.account_uids():
                continue
            is_folder = path in (places.revisions, places.broker_data, places.counters)
            if (fault := fault_of_own(path, facts, folder=is_folder)) is not None:
                yield fault
