"""FleetSource text to a FleetSource: every problem at once, with its place."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ValidationError

from fleet.core.manifest.field_paths import aliases, as_model, model_in
from fleet.core.manifest.interpolate import interpolate
from fleet.core.manifest.models import field_named
from fleet.core.manifest.parse import Positions
from fleet.core.manifest.tree import Findings, Node, Path, Source, plain
from fleet.core.manifest.validation_messages import SENTENCES, InvalidValue, other
from fleet.core.manifest.yaml_reader import load
from fleet.core.text.format import shown
from fleet.core.text.suggest import did_you_mean
from fleet.errors import ManifestError
from fleet.operate.sync import refs, windows
from fleet.operate.sync.models import FleetSource, Git, Spec, Window
from fleet.operate.sync.pacing import Pacing
from fleet.operate.sync.remote import Remote, remote

Problems = Iterator[tuple[Path, str, str]]
_DOCS = "docs/sync.md tells what each field takes"


def parse(source: Source, *, environ: Mapping[str, str]) -> FleetSource:
    """The source that a text describes. Raises ManifestError with every problem."""
    findings = Findings()
    tree = load(source, findings)
    if tree is None:
        raise ManifestError(findings.problems)
    if not isinstance(tree.value, dict):
        findings.add(tree.at, (), "a source is a map of fields", "start with `apiVersion:` and `kind: FleetSource`")
        raise ManifestError(findings.problems)
    tree = interpolate(tree, environ, findings)
    positions = Positions(tree)
    try:
        model = FleetSource.model_validate(plain(tree), by_alias=True, by_name=False)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path, message, hint = _complaint(item)
            node = tree.get(*path)
            if node is not None and node.broken:
                continue  # its text was refused already
            findings.problems.append(positions.problem(path, message, hint))
        raise ManifestError(findings.problems) from error
    findings.problems += [positions.problem(*found) for found in _check(model) if not _is_broken(tree.get(*found[0]))]
    if findings.problems:
        raise ManifestError(findings.problems)
    return model


def is_source(source: Source) -> bool:
    """Whether a text says that it is a FleetSource."""
    tree = load(source, Findings())
    kind = tree.get("kind") if tree is not None else None
    return kind is not None and kind.value == "FleetSource"


def follows_of(git: Git) -> refs.Follows:
    """What the source follows."""
    kinds: tuple[refs.Kind, ...] = ("branch", "tag", "semver", "commit")
    given = git.ref.model_dump()
    return next(refs.Follows(kind, given[kind]) for kind in kinds if given[kind] is not None)


def remote_of(git: Git) -> Remote:
    """Where its repository is."""
    return remote(git.url)


def openings_of(spec: Spec) -> tuple[windows.Opening, ...]:
    """Its windows."""
    return tuple(
        windows.Opening(name, windows.parse_cron(one.cron), one.for_, ZoneInfo(one.tz))
        for name, one in sorted(spec.windows.items())
    )


def pacing_of(spec: Spec) -> Pacing:
    """How often it is looked at."""
    return Pacing(spec.interval, spec.jitter, spec.retry.initial, spec.retry.max)


def moment(text: str) -> float:
    """``2026-12-01T08:00:00Z`` as Unix seconds. Raises ValueError with a sentence."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError(f"not a moment with its zone: {shown(text)}; write it like 2026-12-01T08:00:00Z")
    return found.astimezone(UTC).timestamp()


def _is_broken(node: Node | None) -> bool:
    """Whether something in it was refused already."""
    return node is not None and (node.broken or any(_is_broken(child) for _, child in node.children()))


# single values


def _complaint(item: Any) -> tuple[Path, str, str]:
    path: Path = tuple(part for part in item["loc"] if part != "[key]")
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        known = aliases(place) if (place := _model_at(path[:-1])) else []
        return path, f"unknown field {shown(path[-1])}", did_you_mean(str(path[-1]), known)
    if kind == "missing":
        return path, f"{shown(path[-1])} is required and missing", f"add `{path[-1]}:`"
    if kind == "literal_error" and path == ("kind",):
        return path, f"unknown kind {shown(item.get('input'))}", "write `kind: FleetSource`"
    message, hint = SENTENCES.get(kind, other)(InvalidValue(path, item.get("input"), {**context, "msg": item["msg"]}))
    return path, message, _DOCS if "docs/manifest.md" in hint else hint


def _model_at(path: Path) -> type[BaseModel] | None:
    model: type[BaseModel] | None = FleetSource
    for part in path:
        info = field_named(model, str(part)) if model is not None else None
        model = as_model(model_in(info.annotation)) if info is not None else None
    return model


# what spans several fields


def _check(model: FleetSource) -> Problems:
    spec = model.spec
    for check in (_ref, _address, _paths, _windows, _suspension, _secrets, _reports):
        yield from check(spec)


def _ref(spec: Spec) -> Problems:
    path: Path = ("spec", "git", "ref")
    given = [kind for kind, value in spec.git.ref.model_dump().items() if value is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} at once" if given else "nothing to follow"
        yield path, what, "say one of branch, tag, semver and commit"
        return
    follows = follows_of(spec.git)
    if problem := refs.problem_of(follows):
        message, _, hint = problem.partition("; ")
        yield (*path, follows.kind), message, hint
    verify = spec.git.verify
    if verify is None:
        return
    if verify.ssh is None and verify.gpg is None:
        yield ("spec", "git", "verify"), "no keys are given, so no signature could be good", "give ssh or gpg"
    if verify.mode != "HEAD" and follows.kind in {"branch", "commit"}:
        hint = "write mode: HEAD, or follow a tag or semver"
        yield ("spec", "git", "verify", "mode"), f"a {follows.kind} has no tag that could be signed", hint


def _address(spec: Spec) -> Problems:
    path: Path = ("spec", "git", "url")
    try:
        found = remote(spec.git.url)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        yield path, message, hint
        return
    auth = spec.git.auth
    web = auth.token is not None or auth.ca_file is not None or auth.username is not None
    if found.transport == "ssh" and auth.known_hosts is None:
        hint = "`ssh-keyscan HOST` prints its keys; compare them with what the host's owner publishes"
        yield ("spec", "git", "auth"), "knownHosts is missing: ssh could not tell whom it talks to", hint
    if found.transport == "ssh" and web:
        yield ("spec", "git", "auth"), "username, token and caFile are for https", "for ssh give sshKey and knownHosts"
    if found.transport != "ssh" and (auth.ssh_key is not None or auth.known_hosts is not None):
        yield ("spec", "git", "auth"), "sshKey and knownHosts are for ssh", "for https give token"
    if auth.username is not None and auth.token is None:
        yield ("spec", "git", "auth", "username"), "a username without a token", "add token: {secret: name}"


def _paths(spec: Spec) -> Problems:
    seen = set()
    for index, path in enumerate(spec.git.paths):
        place: Path = ("spec", "git", "paths", index)
        outside = path.startswith(("/", "-")) or posixpath.normpath(path).startswith("..")
        if outside or "\x00" in path or posixpath.normpath(path) != path or path == ".":
            hint = "write it from the top of the repository, such as manifests/prod.yaml"
            yield place, f"not a path within the repository: {shown(path)}", hint
        elif path in seen:
            yield place, f"{shown(path)} is here twice", "remove one"
        seen.add(path)


def _windows(spec: Spec) -> Problems:
    path: Path = ("spec", "windows")
    if spec.apply == "window" and not spec.windows:
        yield ("spec", "apply"), "apply: window, and there are no windows", "add windows, or write apply: auto"
    if spec.apply != "window" and spec.windows:
        yield path, f"windows, and apply is {spec.apply}", "write apply: window, or remove them"
    for name, one in spec.windows.items():
        yield from _window((*path, name), one)


def _window(path: Path, one: Window) -> Problems:
    try:
        windows.parse_cron(one.cron)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        yield (*path, "cron"), message, hint
    if one.for_ > windows.LONGEST_SECONDS:
        yield (*path, "for"), "a window stays open for at most 31 days", "for always write apply: auto"
    try:
        ZoneInfo(one.tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield (*path, "tz"), f"unknown time zone {shown(one.tz)}", "write it like Europe/Berlin, or UTC"


def _suspension(spec: Spec) -> Problems:
    if spec.suspend is None:
        return
    try:
        moment(spec.suspend.until)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        yield ("spec", "suspend", "until"), message, hint


def _secrets(spec: Spec) -> Problems:
    for name, secret in spec.secrets.items():
        given = [field for field, value in secret.model_dump().items() if value is not None]
        if len(given) != 1:
            yield ("spec", "secrets", name), "a secret has exactly one of file, env and exec", "remove what is too much"
    used: dict[Path, Any] = {("spec", "git", "auth", "token"): spec.git.auth.token}
    used[("spec", "status", "commit", "token")] = spec.status.commit.token if spec.status.commit else None
    used[("spec", "receiver", "hmacSecret")] = spec.receiver.hmac_secret if spec.receiver else None
    for path, reference in used.items():
        if reference is not None and reference.secret not in spec.secrets:
            hint = did_you_mean(reference.secret, spec.secrets) or "declare it under spec.secrets"
            yield path, f"there is no secret {shown(reference.secret)}", hint


def _reports(spec: Spec) -> Problems:
    commit = spec.status.commit
    if commit is not None:
        path: Path = ("spec", "status", "commit")
        if commit.api is not None and not commit.api.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            yield (*path, "api"), "not an https address", "write it like https://git.example.com/api/v4"
        project = commit.project or _project(spec)
        if project.count("/") < 1:
            yield (*path, "project"), "the project is not known", "write it like owner/name"
    if spec.receiver is not None:
        host, colon, port = spec.receiver.listen.rpartition(":")
        if not (colon and host and port.isdecimal() and int(port) < 65536):
            yield ("spec", "receiver", "listen"), "not host:port", "write it like 127.0.0.1:9292"


def _project(spec: Spec) -> str:
    try:
        found = remote(spec.git.url)
    except ValueError:
        return "a/b"  # said already
    return found.project if found.transport != "file" else ""
