"""A manifest and what this machine adds to it: from files or from an earlier revision to a desired fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fleet import machine, secrets
from fleet._version import __version__
from fleet.broker import embedded
from fleet.checkout import commit_of
from fleet.core import parse
from fleet.core.desired import Desired
from fleet.core.expand import expand
from fleet.core.facts import NO_OVERRIDES, AppFacts, Facts, Overrides
from fleet.core.manifest import Group, Manifest
from fleet.core.specs import kind_of, secrets_of
from fleet.errors import FleetError, Problem
from fleet.files import STDIN, read_named
from fleet.history import Origin, Revision
from fleet.places import Places

PROBE_TIMEOUT_SECONDS = 120.0
_CUSTOM_POOL = ("FLEET_CUSTOM_WORKER_POOL", "CELERY_CUSTOM_WORKER_POOL")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A manifest that holds, where it came from, and what was noticed in it."""

    manifest: Manifest
    document: Mapping[str, Any]
    origin: Origin
    warnings: tuple[Problem, ...] = ()
    message: str = ""
    positions: parse.Positions | None = None

    @property
    def name(self) -> str:
        """The fleet's name."""
        return self.manifest.name


def read_sources(paths: Sequence[str]) -> list[parse.Source]:
    """The texts of manifest files; ``-`` is the standard input. Raises UsageError for what cannot be read."""
    return [parse.Source(path, read_named(path)) for path in paths]


def from_sources(sources: Sequence[parse.Source], *, environ: Mapping[str, str] = os.environ) -> Wanted:
    """The manifest that texts make together. Raises ManifestError with every problem."""
    parsed = parse.parse(sources, environ=environ)
    files = [source.name for source in sources if source.name != STDIN]
    base = Path(files[0]).absolute().parent if files else Path.cwd()
    origin = Origin(str(base), tuple(str(Path(file).absolute()) for file in files), commit_of(base))
    return Wanted(parsed.manifest, parsed.document, origin, parsed.warnings, positions=parsed.positions)


def from_files(paths: Sequence[str]) -> Wanted:
    """The manifest in files, merged left to right."""
    return from_sources(read_sources(paths))


def from_revision(revision: Revision, *, message: str = "") -> Wanted:
    """The manifest that was applied as a revision."""
    return from_document(revision.manifest, origin=revision.origin, name=f"revision {revision.number}", message=message)


def from_document(document: Mapping[str, Any], *, origin: Origin, name: str, message: str = "") -> Wanted:
    """A manifest that was read before and kept."""
    parsed = parse.from_document(document, name=name)
    return Wanted(parsed.manifest, parsed.document, origin, parsed.warnings, message)


@dataclass(frozen=True, slots=True)
class Aim:
    """A desired fleet and the values of the secrets that its replicas need to start."""

    desired: Desired
    secrets: Mapping[str, str]


def aim(wanted: Wanted, places: Places, *, redis_server: str = "", overrides: Overrides = NO_OVERRIDES) -> Aim:
    """The fleet a manifest describes on this machine. Reads secrets, and asks apps where the manifest is silent."""
    values = secret_values(wanted)
    facts = gather(wanted, places, values, redis_server=redis_server)
    return Aim(expand(wanted.manifest, facts=facts, overrides=overrides), values)


def gather(wanted: Wanted, places: Places, values: Mapping[str, str], *, redis_server: str = "") -> Facts:
    """What the edges find out before planning."""
    spec, base = wanted.manifest.spec, wanted.origin.base
    own_broker = spec.broker == "embedded"
    paths = machine.real_paths([spec.release.workdir, spec.release.python], base=base)
    workdir = paths.get(spec.release.workdir or "", base)
    python = paths.get(spec.release.python or "", sys.executable)
    marks = secrets.fingerprints(values, key=secrets.fleet_key(places.key)) if values else {}
    return Facts(
        cpus=machine.cpus(),
        python=sys.executable,
        own_python=sys.executable,
        own_version=__version__,
        workdir=machine.real_path(base, base=base),
        embedded_url=embedded.url(places) if own_broker else "",
        embedded_command=embedded.command(places, embedded.server(places, setting=redis_server)) if own_broker else (),
        custom_pool=next((os.environ[name] for name in _CUSTOM_POOL if os.environ.get(name)), None),
        real_paths=paths,
        apps={app: _app_facts(app, python, workdir) for app in silent_apps(wanted.manifest)},
        secrets=marks,
    )


def secret_values(wanted: Wanted, *, given: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Name -> value of every secret that a group or the broker's URL uses; only what is not ``given`` is read.

    Raises SecretError.
    """
    names = [name for name in secrets_of(wanted.manifest) if name not in given]
    declared = wanted.manifest.spec.secrets
    return dict(given) | secrets.resolve(declared, folder=Path(wanted.origin.base), environ=os.environ, only=names)


def silent_apps(manifest: Manifest) -> list[str]:
    """Apps whose own ``worker_pool`` or ``worker_concurrency`` counts, because a group of them says nothing."""
    apps = {group.app or manifest.spec.app or "" for group in manifest.spec.groups.values() if _is_silent(group)}
    return sorted(apps - {""})


def _is_silent(group: Group) -> bool:
    if kind_of(group) == "command":
        return False
    pool = group.pool
    if pool is None or not (pool.type or pool.class_):
        return True
    return pool.type != "solo" and pool.concurrency is None


def _app_facts(app: str, python: str, workdir: str) -> AppFacts:
    answer = probe(app, python=python, workdir=workdir)
    return AppFacts(pool=answer.get("pool"), concurrency=answer.get("concurrency"))


@lru_cache(maxsize=32)
def probe(app: str, *, python: str, workdir: str, env: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """What an app says of itself, asked once in a process of its own. ``env``: variables beside our own.

    Raises FleetError when it cannot be imported.
    """
    hint = "mend the import; `pool: {type: …, concurrency: …}` in every group spares the question"
    command = [python, "-m", "fleet.worker.probe", app]
    try:
        done = subprocess.run(
            command,
            cwd=workdir,
            env={**os.environ, **dict(env)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"cannot ask app {app} with {python} in {workdir}: {error}", hint=hint) from error
    answer = _last_document(done.stdout.splitlines())
    if done.returncode or "error" in answer:
        said = answer.get("error") or (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise FleetError(f"app {app}: {said}", hint=str(answer.get("hint") or hint))
    return answer


def _last_document(lines: Iterable[str]) -> dict[str, Any]:
    """The answer is the last line; an app may print what it likes before."""
    for line in reversed(list(lines)):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            return document
    return {}
