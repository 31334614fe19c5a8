"""validate: every problem of a manifest at once; touches nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fleet.cli import sarif
from fleet.cli.output import Output
from fleet.cli.target import fleet_for, manifest_of, no_names, output_flag, target_flags, target_of
from fleet.core.observed import Observed
from fleet.errors import FleetError, ManifestError, Problem, Refused

if TYPE_CHECKING:
    from fleet.core.manifest.models import Manifest
    from fleet.inputs.foreseen import Foreseen
    from fleet.inputs.manifest import LoadedManifest


def validate_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    parser.add_argument("--strict", action="store_true", help="treat warnings as problems")
    parser.add_argument(
        "--check", action="store_true", help="also look for programs, folders, interpreters and the broker"
    )
    parser.add_argument("--check-import", action="store_true", help="also import every app, as its workers would")
    output_flag(parser, "sarif")


def validate(args: argparse.Namespace, out: Output) -> int:
    """Print every problem, or one line about a manifest without any."""
    from fleet.inputs.accounts import account_problems, root_warning

    target = target_of(args)
    no_names(target)
    try:
        loaded = manifest_of(target)
        loaded = replace(loaded, warnings=(*loaded.warnings, *account_problems(loaded), *_of_celerys_version(loaded)))
        if args.strict and loaded.warnings:
            raise ManifestError(loaded.warnings)
        if args.check_import:
            _check_imports(loaded)
        _check_sums(loaded)
        if args.check:
            _check_machine(loaded)
    except ManifestError as error:
        if args.output == "sarif":
            out.document(sarif.document(error.problems, ()))
            return error.exit_code
        if not out.is_json:
            raise
        out.document({"valid": False, "problems": _problems(error.problems), "warnings": []})
        return error.exit_code
    if args.output == "sarif":
        out.document(sarif.document((), loaded.warnings))
        return 0
    groups = len(loaded.manifest.spec.groups)
    text = f"{', '.join(target.sources()) or loaded.name}: fleet {loaded.name}, {groups} groups, no problems"
    for warning in (*loaded.warnings, root_warning(loaded)):
        if warning:
            out.say(f"warning: {warning}")
    out.either({"valid": True, "fleet": loaded.name, "problems": [], "warnings": _problems(loaded.warnings)}, text)
    return 0


def _problems(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [{name: getattr(one, name) for name in Problem.__slots__} for one in problems]


def _check_imports(loaded: LoadedManifest) -> None:
    """Import each app with the release's interpreter. Raises ManifestError with all that fail."""
    from fleet.core.expand.specs import kind_of
    from fleet.inputs.facts import probe
    from fleet.inputs.machine import real_path

    spec, base = loaded.manifest.spec, loaded.origin.base
    python = real_path(spec.release.python, base=base) if spec.release.python else sys.executable
    workdir = real_path(spec.release.workdir or base, base=base)
    apps: dict[str, str] = {}
    for name, group in spec.groups.items():
        if kind_of(group) != "command":
            apps.setdefault(group.app or spec.app or "", f"spec.groups.{name}.app" if group.app else "spec.app")
    failed = []
    for app, path in sorted(apps.items()):
        try:
            probe(app, python=python, workdir=workdir)
        except FleetError as error:
            failed.append(Problem(loaded.origin.sources[0], 0, 0, path, error.message, error.hint))
    if failed:
        raise ManifestError(failed)


def _of_celerys_version(loaded: LoadedManifest) -> list[Problem]:
    """What the installed version of Celery cannot do in the groups that it runs. Nothing is run to find it."""
    from fleet.core.celery_versions import lacks_of, shown
    from fleet.inputs.celery_version import celery_of
    from fleet.inputs.machine import real_path

    spec = loaded.manifest.spec
    groups = {name: group for name, group in spec.groups.items() if group.worker == "celery" and group.command is None}
    if not groups or loaded.positions is None:
        return []
    of_group = {name: (group.release and group.release.python) or spec.release.python for name, group in groups.items()}
    versions = {
        python: celery_of(real_path(python, base=loaded.origin.base) if python else sys.executable)
        for python in set(of_group.values())
    }
    hint = "update Celery in the release, or use fleet's own worker (`worker: fleet`)"
    return [
        loaded.positions.problem(f"spec.groups.{name}.worker", f"Celery {shown(version)}: {what}", hint)
        for name, group in groups.items()
        if (version := versions[of_group[name]]) is not None
        for what in lacks_of(version, (group.pool and group.pool.type) or "prefork")
    ]


def _check_machine(loaded: LoadedManifest) -> None:
    """Look for what the manifest needs on this machine. Raises ManifestError with all that is not there, and what
    `apply` raises where a secret or an app cannot be read."""
    from fleet.inputs.foreseen import foreseen

    found = foreseen(*fleet_for(loaded).desired_of(loaded))
    if found and loaded.positions is not None:
        paths = [_written(one, loaded.manifest) for one in found]
        pairs = zip(paths, found, strict=True)
        raise ManifestError([loaded.positions.problem(path, str(one), one.hint) for path, one in pairs])


def _written(one: Foreseen, manifest: Manifest) -> str:
    """The field that says it: a folder and an interpreter may be the group's own."""
    field = one.path.removeprefix("spec.release.")
    own = manifest.spec.groups[one.group].release if one.group else None
    is_own = field != one.path and own is not None and getattr(own, field) is not None
    return f"spec.groups.{one.group}.release.{field}" if is_own else one.path


def _check_sums(loaded: LoadedManifest) -> None:
    """Budgets that do not add up are problems of the manifest, with a position in it."""
    try:
        _add_up(loaded)
    except Refused as error:
        written = ("budgets", "concurrency", "groups")
        path = next((f"spec.{name}" for name in written if loaded.document["spec"].get(name)), "spec")
        if loaded.positions is None:
            raise ManifestError([Problem(loaded.name, 0, 0, path, error.message, error.hint)]) from error
        raise ManifestError([loaded.positions.problem(path, error.message, error.hint)]) from error


def _make_objects(loaded: LoadedManifest) -> None:
    from fleet.backends.kubernetes.objects import objects_of
    from fleet.core.expand.in_cluster import desired_in_cluster

    objects_of(loaded.manifest, desired_in_cluster(loaded.manifest), loaded.document)


def _add_up(loaded: LoadedManifest) -> None:
    """Check budgets without secrets, apps or anything that runs: the default stands for what is unknown."""
    from fleet.core.expand.expand import expand
    from fleet.core.expand.facts import Facts
    from fleet.core.planning import budget
    from fleet.core.planning.planner import plan
    from fleet.core.planning.rollout import in_waves
    from fleet.inputs.machine import cpus

    if loaded.manifest.spec.target == "kubernetes":
        _make_objects(loaded)
        return
    facts = Facts(cpus=cpus(), embedded_url="redis+socket:///", embedded_command=("redis-server",))
    desired = expand(loaded.manifest, facts=facts)
    empty = Observed(loaded.name)
    budget.check(desired, in_waves(plan(desired, empty), desired, empty), empty)
