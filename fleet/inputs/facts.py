"""What this machine adds to a manifest: real paths, cores, values of secrets, and the settings of an app."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fleet._version import __version__
from fleet.broker import embedded
from fleet.broker.server_version import check_server
from fleet.core.desired import Desired
from fleet.core.expand.env_from import BUNDLE
from fleet.core.expand.env_from import is_used as env_from_is_used
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import NO_OVERRIDES, AppFacts, Facts, Overrides
from fleet.core.expand.specs import kind_of, secrets_of
from fleet.core.manifest.models import Group, GroupRelease, Manifest
from fleet.core.spec import FLEETS_ACCOUNT, AccountSpec
from fleet.core.text.mask import holds_secret
from fleet.errors import FleetError, Refused
from fleet.inputs import env_from, machine, secrets
from fleet.inputs.accounts import Accounts, accounts_of, check_access
from fleet.inputs.code import code_of
from fleet.inputs.git import commit_of
from fleet.inputs.manifest import LoadedManifest
from fleet.inputs.no_exec import refuse_code
from fleet.inputs.secrets import SecretError
from fleet.replica.account import groups_of, variables
from fleet.state.paths import Places

PROBE_TIMEOUT_SECONDS = 120.0
_KEPT = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV", "DJANGO_SETTINGS_MODULE"})
_KEPT_PREFIXES = ("LC_", "SSL_CERT_", "PYTHON", "CELERY_", "FLEET_", "LD_", "COVERAGE_")
_CUSTOM_POOL = ("FLEET_CUSTOM_WORKER_POOL", "CELERY_CUSTOM_WORKER_POOL")


def desired_of(
    loaded: LoadedManifest, places: Places, *, redis_server: str = "", overrides: Overrides = NO_OVERRIDES
) -> tuple[Desired, Mapping[str, str]]:
    """The fleet a manifest describes on this machine, and the values of its secrets by name.

    Reads secrets, and asks apps for settings that the manifest leaves out. Raises SecretError and FleetError.
    """
    accounts_of(loaded)  # before any code runs
    values = secret_values(loaded)
    facts = gather(loaded, places, values, redis_server=redis_server)
    return expand(loaded.manifest, facts=facts, overrides=overrides), values


def gather(loaded: LoadedManifest, places: Places, values: Mapping[str, str], *, redis_server: str = "") -> Facts:
    """The facts of this machine that planning needs.

    Of a manifest that brings its pins only secrets, the code in its folder and fleet's own programs are looked up
    again: they are today's. Raises FleetError where a pinned path is gone.
    """
    if loaded.manifest.spec.release.source is not None:
        hint = "follow the repository with `fleet sync run`, or write workdir and python"
        raise Refused("spec.release.source is made by `fleet sync` from its repository", hint=hint)
    own_broker = loaded.manifest.spec.broker == "embedded"
    accounts = accounts_of(loaded)
    facts = _resolved(loaded, accounts) if loaded.pins is None else _checked(loaded, loaded.pins)
    workdir, python = _place(loaded, facts)
    check_access(
        accounts, loaded.manifest, workdir=workdir, python=python, real_paths=facts.real_paths, root=places.root
    )
    folder, shared = Path(workdir), accounts.broker != FLEETS_ACCOUNT
    return replace(
        facts,
        accounts=accounts.groups,
        broker_account=accounts.broker,
        own_python=sys.executable,
        own_version=__version__,
        embedded_url=embedded.url(places, given_away=shared) if own_broker else "",
        embedded_command=_embedded_command(places, redis_server, shared) if own_broker else (),
        secrets=secrets.fingerprints(values, key=secrets.fleet_key(places.key)) if values else {},
        commit=commit_of(folder).get("sha", ""),
        code=code_of(folder, loaded.manifest.spec.release.watch or "off"),
        first_index=machine.first_index(os.environ),
    )


def _embedded_command(places: Places, setting: str, given_away: bool) -> tuple[str, ...]:
    server = embedded.server(places, setting=setting)
    check_server(server)
    return embedded.command(places, server, given_away=given_away)


def resolved(loaded: LoadedManifest) -> LoadedManifest:
    """The manifest with its pins: from here on it means what it means now, wherever its links lead next."""
    return loaded if loaded.pins is not None else replace(loaded, pins=_resolved(loaded, accounts_of(loaded)))


def _resolved(loaded: LoadedManifest, accounts: Accounts) -> Facts:
    release, base = loaded.manifest.spec.release, loaded.origin.base
    facts = Facts(
        cpus=machine.cpus(),
        python=sys.executable,
        workdir=machine.real_path(base, base=base),
        custom_pool=next((os.environ[name] for name in _CUSTOM_POOL if os.environ.get(name)), None),
        real_paths=machine.real_paths([release.workdir, release.python, *_own_paths(loaded.manifest)], base=base),
    )
    workdir, python = _place(loaded, facts)
    manifest = loaded.manifest
    apps = {}
    for app in silent_apps(manifest):
        own = _release_of(app, manifest)
        where, which = facts.real_paths.get(own.workdir or "", workdir), facts.real_paths.get(own.python or "", python)
        apps[app] = _app_facts(app, which, where, _env_of(app, manifest), _account_of(app, manifest, accounts))
    return replace(facts, apps=apps)


def _own_paths(manifest: Manifest) -> list[str | None]:
    """The paths that single groups name."""
    releases = [group.release for group in manifest.spec.groups.values() if group.release is not None]
    logs = [group.log_file for group in manifest.spec.groups.values()]
    return [*(path for own in releases for path in (own.workdir, own.python)), *logs]


def _release_of(app: str, manifest: Manifest) -> GroupRelease:
    """Where the workers of an app find it; of groups that differ, as the first has it."""
    groups = (group for group in manifest.spec.groups.values() if (group.app or manifest.spec.app) == app)
    return next((group.release for group in groups if group.release is not None), GroupRelease.empty())


def _account_of(app: str, manifest: Manifest, accounts: Accounts) -> AccountSpec:
    """Who imports an app: the account of its workers; of groups that differ, the first."""
    groups = [name for name, group in manifest.spec.groups.items() if (group.app or manifest.spec.app) == app]
    return next((accounts.groups[name] for name in groups if name in accounts.groups), FLEETS_ACCOUNT)


def _place(loaded: LoadedManifest, facts: Facts) -> tuple[str, str]:
    """The working folder and the interpreter of a manifest's workers."""
    release, paths = loaded.manifest.spec.release, facts.real_paths
    return paths.get(release.workdir or "", facts.workdir), paths.get(release.python or "", facts.python)


def _checked(loaded: LoadedManifest, pins: Facts) -> Facts:
    """The pins, of which the folder and the interpreter are still there. Raises FleetError."""
    if all(kind_of(group) == "command" for group in loaded.manifest.spec.groups.values()):
        return pins
    workdir, python = _place(loaded, pins)
    gone = [path for path, there in ((workdir, os.path.isdir(workdir)), (python, os.path.exists(python))) if not there]
    if gone:
        hint = "apply the manifest itself, which resolves its paths again, or go back to another revision"
        raise FleetError(f"the code of that revision is gone: there is no {' and no '.join(gone)}", hint=hint)
    return pins


def secret_values(loaded: LoadedManifest, *, given: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Name -> value of every secret that a group or the broker's URL uses; only what is not ``given`` is read.

    Raises SecretError.
    """
    names = [name for name in secrets_of(loaded.manifest) if name not in {*given, BUNDLE}]
    declared, folder = loaded.manifest.spec.secrets, Path(loaded.origin.base)
    values = dict(given) | secrets.resolve(declared, folder=folder, environ=os.environ, only=names)
    return values | _taken(loaded, bundle=given.get(BUNDLE))


def _taken(loaded: LoadedManifest, *, bundle: str | None = None) -> dict[str, str]:
    """What ``envFrom`` of the groups takes, by key."""
    if not env_from_is_used(loaded.manifest):
        return {}
    folder = Path(loaded.origin.base)
    return env_from.values_of(loaded.manifest, folder=folder, environ=os.environ, bundle=bundle)


def applied_secrets(loaded: LoadedManifest, marks: Mapping[str, str], *, key: bytes) -> dict[str, str]:
    """Of the secrets with these fingerprints, by name, those whose source still gives the very value."""
    found = {}
    taken: dict[str, str] = {}
    with contextlib.suppress(SecretError):
        taken = _taken(loaded)
    declared, folder = loaded.manifest.spec.secrets, Path(loaded.origin.base)
    for name, mark in marks.items():
        with contextlib.suppress(SecretError):
            only = [name] if name in declared else []
            value = (taken | secrets.resolve(declared, folder=folder, environ=os.environ, only=only)).get(name)
            if value is not None and secrets.fingerprint(value, key=key) == mark:
                found[name] = value
    return found


def silent_apps(manifest: Manifest) -> list[str]:
    """Apps whose own ``worker_pool``, ``worker_concurrency`` or queue applies, because a group leaves it out."""
    apps = {group.app or manifest.spec.app or "" for group in manifest.spec.groups.values() if _is_silent(group)}
    return sorted(apps - {""})


def _is_silent(group: Group) -> bool:
    if kind_of(group) == "command":
        return False
    pool = group.pool
    if kind_of(group) == "worker" and not group.queues:
        return True
    if pool is None or not (pool.type or pool.class_):
        return True
    return pool.type != "solo" and pool.concurrency is None


def _env_of(app: str, manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """The variables that workers of the app are given, values of secrets apart; of groups that differ, the first."""
    found: dict[str, str] = {}
    for group in manifest.spec.groups.values():
        if (group.app or manifest.spec.app) == app:
            found = {**(group.env or {}), **found}
    return tuple(sorted(found.items()))


def _app_facts(app: str, python: str, workdir: str, env: tuple[tuple[str, str], ...], account: AccountSpec) -> AppFacts:
    answer = probe(app, python=python, workdir=workdir, env=env, account=account)
    queues = tuple(answer.get("queues") or ())
    return AppFacts(pool=answer.get("pool"), concurrency=answer.get("concurrency"), queues=queues)


@lru_cache(maxsize=32)
def probe(
    app: str,
    *,
    python: str,
    workdir: str,
    env: tuple[tuple[str, str], ...] = (),
    account: AccountSpec = FLEETS_ACCOUNT,
) -> dict[str, Any]:
    """The settings of an app, asked once in a process of its own. ``env``: variables that its workers are given.
    ``account``: theirs.

    Of our own it sees those that name folders, languages and settings, as its workers do: no token of the shell that
    plans. Raises FleetError when it cannot be imported, Refused where no code may run.
    """
    import subprocess  # most plans ask no app

    refuse_code(f"the app {app} with {python}")
    hint = "fix the import; with `pool: {type: …, concurrency: …}` in every group the app is not asked"
    command = [python, "-m", "fleet.worker.probe", app]
    try:
        done = subprocess.run(
            command,
            cwd=workdir,
            env={**_kept(os.environ), **(variables(account.uid) if account.user else {}), **dict(env)},
            **(_as(account) if account.user else {}),
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


def _as(account: AccountSpec) -> dict[str, Any]:
    return {"user": account.uid, "group": account.gid, "extra_groups": groups_of(account)}


def _kept(environ: Mapping[str, str]) -> dict[str, str]:
    shown = (item for item in environ.items() if item[0] in _KEPT or item[0].startswith(_KEPT_PREFIXES))
    return {name: value for name, value in shown if not holds_secret(name, value)}


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
