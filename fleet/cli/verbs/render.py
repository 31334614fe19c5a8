"""render: the exact bytes that apply would write."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.cli.output import Output
from fleet.cli.target import fleet_for, manifest_of, no_names, target_flags, target_of
from fleet.state.files import write_whole

if TYPE_CHECKING:
    from fleet.core.desired import Desired
    from fleet.operate.local_fleet import LocalFleet

MASK = "********"


def render_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    parser.add_argument("--target", choices=("supervisor",), default="supervisor", help="the backend (only supervisor)")
    parser.add_argument("--out", metavar="DIR", help="write the files there instead of printing them")


def render(args: argparse.Namespace, out: Output) -> int:
    """The files of a fleet that starts from nothing; values of secrets are masked."""
    target = target_of(args)
    no_names(target)
    loaded = manifest_of(target)
    fleet = fleet_for(loaded)
    files = _files(fleet, *fleet.desired_of(loaded))
    if args.out:
        for name, text in files.items():
            write_whole(Path(args.out) / name, text)
        out.say(f"{len(files)} files in {args.out}")
        return 0
    for name, text in files.items():
        out.facts(f"# --- {name}\n{text}")
    return 0


def _files(fleet: LocalFleet, desired: Desired, secrets: Iterable[str]) -> Mapping[str, str]:
    from fleet.backends.supervisor import config
    from fleet.backends.supervisor.replica_files import Folder
    from fleet.core.planning.assignment import assign

    places, folder = fleet.places, Folder(fleet.places)
    replicas = [one for group in desired.groups.values() for one in assign(group, ()).wanted.values()]
    room = sum(group.replicas + group.rollout.max_surge for group in desired.groups.values())
    root, descriptors = os.geteuid() == 0, config.descriptors(room)
    daemon = config.daemon_text(places, descriptors=descriptors, as_root=root, python=sys.executable)
    files = {"run/supervisord.conf": daemon}
    masked = dict.fromkeys(secrets, MASK)
    for one in replicas:
        program = config.Program(one.name, one.digest, one.spec.drain_timeout_seconds)
        text = config.program_text(program, places=places, python=sys.executable)
        files[f"run/conf.d/{one.name}.conf"] = text
        files[f"run/specs/{one.name}.json"] = folder.document(one, text, masked).decode()
    return files
