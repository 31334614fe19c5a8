"""Compose files: services that run a program of their own become groups."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.authoring.convert.celery_options import REFERENCE
from fleet.authoring.convert.draft import Draft, Program
from fleet.authoring.convert.programs import add_program
from fleet.authoring.convert.yaml_lines import Document, documents, shown, text_of
from fleet.authoring.yaml_writer import free_name, span
from fleet.core.text.format import seconds_in
from fleet.errors import UsageError

KIND = "compose"
EXPECTED = "give a compose file: a map with `services:`"
_SERVERS = re.compile(
    r"(?:^|/)(redis|valkey|postgres|postgis|mysql|mariadb|mongo|memcached|rabbitmq|nginx|traefik|caddy|elasticsearch"
    r"|opensearch|minio|mailhog|mailpit|kafka|zookeeper|localstack|prometheus|grafana)[^/]*$"
)
_READ = frozenset(
    {"command", "entrypoint", "environment", "env_file", "working_dir", "user", "deploy", "scale", "stop_grace_period"}
    | {"depends_on", "image", "build", "secrets", "restart", "stop_signal"}
)
_LEFT_OUT = {
    "ports": "a program on this machine listens where it is told to",
    "expose": "a program on this machine listens where it is told to",
    "volumes": "a program on this machine sees this machine's files",
    "networks": "programs on this machine need none",
    "healthcheck": "a command is ready when it has lived for health.readyAfter",
    "container_name": "replicas are GROUP.INDEX",
    "profiles": "the group is always there; hold it with `paused: true`",
    "logging": "read the log with `fleet logs`",
    "init": "fleet's launcher and supervisord do this",
    "tty": "a replica has no terminal",
    "stdin_open": "a replica has no terminal",
}


def is_kind(text: str) -> bool:
    return re.search(r"(?m)^services:", text) is not None


def read(text: str, draft: Draft) -> None:
    """Add a group for each service that runs a program of the project."""
    whole = documents(text, source=draft.source, expected=EXPECTED)
    services = whole[0].value.get("services") if whole and isinstance(whole[0].value, dict) else None
    if not isinstance(services, dict):
        raise UsageError(f"{draft.source}: there are no services in it", hint=EXPECTED)
    document = whole[0]
    for key in document.value:
        if key not in {"services", "version", "secrets", "name"} and not key.startswith("x-"):
            draft.note(f"{key}: left out; it is about containers", document.line(key))
    jobs = _jobs(services)
    taken = {name for name, service in services.items() if isinstance(service, dict) and _is_taken(name, service, jobs)}
    for name, service in services.items():
        if isinstance(service, dict):
            _Service(draft, document, str(name), service, taken, jobs).read()


def _jobs(services: Mapping[str, Any]) -> frozenset[str]:
    """Services that others wait for to complete: they run once."""
    conditions = [_conditions(service) for service in services.values() if isinstance(service, dict)]
    return frozenset(name for each in conditions for name, how in each.items() if how == _COMPLETED)


_COMPLETED = "service_completed_successfully"


def _conditions(service: Mapping[str, Any]) -> dict[str, str]:
    said = service.get("depends_on") or {}
    if isinstance(said, list):
        return {text_of(name): "service_started" for name in said}
    return {
        name: text_of(how.get("condition", "service_started")) if isinstance(how, dict) else "service_started"
        for name, how in (said.items() if isinstance(said, dict) else ())
    }


def _is_taken(name: str, service: Mapping[str, Any], jobs: frozenset[str]) -> bool:
    runs = bool(service.get("command") or service.get("entrypoint"))
    return runs and name not in jobs and not _is_server(service)


def _is_server(service: Mapping[str, Any]) -> bool:
    image = re.sub(r"[:@][^/]*$", "", text_of(service.get("image")))
    return "build" not in service and _SERVERS.search(image) is not None


class _Service:
    """One service on its way to a group."""

    def __init__(
        self,
        draft: Draft,
        document: Document,
        name: str,
        said: Mapping[str, Any],
        taken: set[str],
        jobs: frozenset[str],
    ) -> None:
        self._draft, self._document, self._name, self._said = draft, document, name, said
        self._taken, self._jobs = taken, jobs

    def read(self) -> None:
        """Add the group, or say why there is none."""
        if self._name in self._jobs:
            self._note("", f"runs once before others: left out; run it before fleet apply: {self._line_of_words()}")
        elif _is_server(self._said):
            self._note("", f"image {shown(self._said['image'])}: left out; a server that stays where it is")
        elif self._name not in self._taken:
            self._note("", "left out: it has no command here, and what its image runs is not known")
        else:
            self._add()

    def _add(self) -> None:
        program = Program(self._name, self._at(), words=self._words())
        program.env = self._environment(program)
        files = [(self._draft.beside(path), required) for path, required in self._env_files()]
        program.env_files = [path if required else f"-{path}" for path, required in files]
        program.workdir = "" if self._draft.folder == "." else self._draft.folder
        program.user, _, program.group = _interpolated(text_of(self._said.get("user"))).partition(":")
        program.fields = self._fields()
        self._secrets()
        for key in sorted(set(self._said) - _READ - {key for key in self._said if key.startswith("x-")}):
            why = _LEFT_OUT.get(key, "it is about a container")
            self._note(key, f"{key} {shown(self._said[key])}: left out; {why}")
        if "image" in self._said or "build" in self._said:
            what = "image" if "image" in self._said else "build"
            self._note(what, f"{what} {shown(self._said[what])}: left out; the program is run on this machine")
        if folder := _interpolated(text_of(self._said.get("working_dir"))):
            self._note("working_dir", f"working_dir {folder}: a folder of the image; left out, set release.workdir")
        add_program(self._draft, program)

    def _words(self) -> list[str]:
        return [*_split(self._said.get("entrypoint")), *_split(self._said.get("command"))]

    def _line_of_words(self) -> str:
        return shlex.join(self._words()) or "its image's command"

    def _environment(self, program: Program) -> dict[str, str]:
        said = self._said.get("environment") or {}
        pairs: dict[str, Any] = {}
        if isinstance(said, list):
            for item in said:
                name, equals, value = text_of(item).partition("=")
                pairs[name] = value if equals else None
        elif isinstance(said, dict):
            pairs = said
        for name in [name for name, value in pairs.items() if value is None]:
            program.inherit[name] = "optional"
        return {name: _interpolated(text_of(value)) for name, value in pairs.items() if value is not None}

    def _env_files(self) -> list[tuple[str, bool]]:
        said = self._said.get("env_file") or []
        items = said if isinstance(said, list) else [said]
        return [
            (text_of(item.get("path")), item.get("required") is not False) if isinstance(item, dict) else (item, True)
            for item in items
        ]

    def _fields(self) -> dict[str, object]:
        deploy = self._said.get("deploy")
        deploy = deploy if isinstance(deploy, dict) else {}
        fields: dict[str, object] = {"replicas": self._count(deploy.get("replicas", self._said.get("scale", 1)))}
        grace = self._said.get("stop_grace_period")
        if grace is not None:
            seconds = seconds_in(text_of(grace))
            if seconds is None:
                self._note("stop_grace_period", f"stop_grace_period {shown(grace)}: not a duration; left out")
            else:
                fields["drain"] = {"timeout": span(seconds)}
        if depends := self._depends():
            fields["dependsOn"] = depends
        for key in sorted(set(deploy) - {"replicas"}):
            self._note("deploy", f"deploy.{key} {shown(deploy[key])}: left out; it has no counterpart", key)
        signal = text_of(self._said.get("stop_signal", "TERM")).upper().removeprefix("SIG")
        if signal not in {"TERM", "15"}:
            self._note("stop_signal", f"stop_signal {signal}: left out; fleet stops with TERM")
        restart = text_of(self._said.get("restart"))
        if restart not in {"", "always", "unless-stopped"}:
            self._note("restart", f"restart {restart}: left out; fleet starts a replica again whenever it ends")
        return fields

    def _count(self, said: Any) -> int | str:
        if REFERENCE.fullmatch(reference := _interpolated(text_of(said))):
            return reference
        if isinstance(said, int) or text_of(said).isdigit():
            return min(int(said), 10_000)
        self._note("deploy", f"replicas {shown(said)}: not a number; write it by hand", "replicas")
        return 1

    def _depends(self) -> list[str]:
        names = []
        for name, how in _conditions(self._said).items():
            if name in self._taken:
                names.append(free_name(name, {}))
            else:
                self._note("depends_on", f"depends_on {name} ({how}): left out; there is no group {name}", name)
        return names

    def _secrets(self) -> None:
        for item in self._said.get("secrets") or []:
            name = text_of(item.get("source") if isinstance(item, dict) else item)
            text = f"secret {name}: a file /run/secrets/{name} in the container; left out, use spec.secrets"
            self._note("secrets", text)

    def _at(self, *path: str) -> int:
        return self._document.line("services", self._name, *path)

    def _note(self, key: str, text: str, *below: str) -> None:
        self._draft.note(f"{self._name}: {text}", self._at(*((key,) if key else ()), *below))


def _split(said: Any) -> list[str]:
    """Compose splits a text into words and runs them without a shell."""
    words: Sequence[Any] = shlex.split(said) if isinstance(said, str) else said if isinstance(said, list) else []
    return [_interpolated(text_of(word)) for word in words]


def _interpolated(text: str) -> str:
    """``${X:-d}``, ``$X`` and ``$$`` of compose as the manifest writes them."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        rest = match["rest"] or ""
        default = f":-{rest.lstrip(':')[1:]}" if rest.lstrip(":").startswith("-") else ""
        return f"${{env:{match['bare'] or match['braced']}{default}}}"

    pattern = (
        r"\$\$(?!\{env:)|(?<!\$)\$(?!\{env:)(?:(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?P<rest>[^}]*)\})"
    )
    return re.sub(pattern, one, text)
