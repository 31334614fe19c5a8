"""render: the exact bytes that apply would write."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.cli.output import Output
from fleet.cli.target import fleet_for, manifest_of, no_names, target_flags, target_of
from fleet.core.text.mask import holds_secret, masked
from fleet.state.files import write_whole

if TYPE_CHECKING:
    from fleet.core.desired import Desired
    from fleet.core.spec import WorkerSpec
    from fleet.inputs.manifest import LoadedManifest
    from fleet.operate.local_fleet import LocalFleet

MASK = "********"


def render_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    targets = ("supervisor", "kubernetes")
    parser.add_argument("--target", choices=targets, help="the backend (default: spec.target, else supervisor)")
    parser.add_argument("--out", metavar="DIR", help="write the files there instead of printing them")


def render(args: argparse.Namespace, out: Output) -> int:
    """The files of a fleet that starts from nothing; what is secret, or looks like it, is masked or not even read."""
    target = target_of(args)
    no_names(target)
    loaded = manifest_of(target)
    if (args.target or loaded.manifest.spec.target) == "kubernetes":
        return _render_objects(loaded, args.out, out)
    fleet = fleet_for(loaded)
    files = _files(fleet, *fleet.desired_of(loaded))
    if args.out:
        _write(files, args.out, out)
        return 0
    for name, text in files.items():
        out.facts(f"# --- {name}\n{text}")
    return 0


def _write(files: Mapping[str, str], folder: str, out: Output) -> None:
    for name, text in files.items():
        write_whole(Path(folder) / name, text)
    out.say(f"{len(files)} files in {folder}")


def _render_objects(loaded: LoadedManifest, folder: str | None, out: Output) -> int:
    """A folder for Kustomize, or one stream for ``kubectl apply -f -``."""
    from fleet.backends.kubernetes import objects
    from fleet.backends.kubernetes.yaml_text import stream_text
    from fleet.core.expand.in_cluster import desired_in_cluster, untranslated

    desired = desired_in_cluster(loaded.manifest)
    made = objects.objects_of(loaded.manifest, desired, loaded.document)
    for note in untranslated(loaded.manifest, desired):
        out.say(f"note: {note}")
    if folder:
        _write({name: stream_text(documents) for name, documents in made.items()}, folder, out)
        return 0
    whole = [one for name, documents in made.items() if name != objects.KUSTOMIZATION for one in documents]
    out.facts(stream_text(whole).removesuffix("\n"))
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
    hidden = dict.fromkeys(secrets, MASK)
    for one in replicas:
        program = config.Program(one.name, one.digest, one.spec.drain_timeout_seconds, one.spec.stop.signal)
        text = config.program_text(program, places=places, python=sys.executable)
        files[f"run/conf.d/{one.name}.conf"] = text
        shown = replace(one, spec=_without_password(one.spec))
        files[f"run/specs/{one.name}.json"] = folder.document(shown, text, hidden).to_bytes().decode()
    return files


def _without_password(spec: WorkerSpec) -> WorkerSpec:
    env = tuple((name, MASK if holds_secret(name, value) else value) for name, value in spec.env)
    return replace(spec, broker=replace(spec.broker, url=masked(spec.broker.url)), env=env)
