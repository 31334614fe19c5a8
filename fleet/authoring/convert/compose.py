"""Compose files: services that run a program of their own become groups."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fleet.authoring.convert.celery_options import REFERENCE, celery_worker
from fleet.authoring.convert.draft import STOP_SIGNALS, After, Draft, OfCommand, Program
from fleet.authoring.convert.limits import memory, open_files, processors
from fleet.authoring.convert.programs import add_program
from fleet.authoring.convert.yaml_lines import Document, documents, shown, text_of
from fleet.authoring.yaml_writer import span
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
    | {"depends_on", "image", "build", "secrets", "restart", "stop_signal", "healthcheck", "mem_limit", "cpus"}
    | {"ulimits"}
)
_LEFT_OUT = {
    "ports": "a program on this machine listens where it is told to",
    "expose": "a program on this machine listens where it is told to",
    "volumes": "a program on this machine sees this machine's files",
    "networks": "programs on this machine need none",
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
    taken = {name for name, service in services.items() if isinstance(service, dict) and _is_taken(service)}
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


def _is_taken(service: Mapping[str, Any]) -> bool:
    return bool(service.get("command") or service.get("entrypoint")) and not _is_server(service)


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
        if _is_server(self._said):
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
        program.fields = self._fields(is_worker=celery_worker(program.words))
        program.of_command = list(self._of_command())
        program.after = list(self._after())
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

    def _fields(self, *, is_worker: bool) -> dict[str, object]:
        deploy = _map(self._said.get("deploy"))
        fields: dict[str, object] = {"replicas": self._count(deploy.get("replicas", self._said.get("scale", 1)))}
        grace = self._said.get("stop_grace_period")
        if grace is not None:
            seconds = seconds_in(text_of(grace))
            if seconds is None:
                self._note("stop_grace_period", f"stop_grace_period {shown(grace)}: not a duration; left out")
            else:
                fields["drain"] = {"timeout": span(seconds)}
        if self._name in self._jobs:
            fields["job"] = True
        if limits := self._limits(deploy):
            fields["limits"] = limits
        if "healthcheck" in self._said and (health := self._health(is_worker=is_worker)):
            fields["health"] = health
        for key in sorted(set(deploy) - {"replicas", "resources"}):
            self._note("deploy", f"deploy.{key} {shown(deploy[key])}: left out; it has no counterpart", key)
        return fields

    def _limits(self, deploy: Mapping[str, Any]) -> dict[str, object]:
        """Of the service itself, of ``deploy.resources.limits``, and of ``ulimits.nofile``."""
        resources = _map(deploy.get("resources"))
        for key in sorted(set(resources) - {"limits"}):
            text = f"deploy.resources.{key} {shown(resources[key])}: left out; see perReplica"
            self._note("deploy", text, "resources")
        limits, ulimits = _map(resources.get("limits")), _map(self._said.get("ulimits"))
        for key in sorted(set(limits) - {"cpus", "memory"}):
            text = f"deploy.resources.limits.{key} {shown(limits[key])}: left out; it has no counterpart"
            self._note("deploy", text, "resources")
        for key in sorted(set(ulimits) - {"nofile"}):
            self._note("ulimits", f"ulimits.{key} {shown(ulimits[key])}: left out; it has no counterpart")
        files = ulimits.get("nofile")
        said: dict[str, tuple[Any, Callable[[str], object]]] = {
            "memory": (limits.get("memory", self._said.get("mem_limit")), memory),
            "cpus": (limits.get("cpus", self._said.get("cpus")), processors),
            "openFiles": (max(files.values()) if isinstance(files, dict) and files else files, open_files),
        }
        found: dict[str, object] = {}
        for name, (value, read_as) in said.items():
            if value is not None and (amount := read_as(_interpolated(text_of(value)))) is not None:
                found[name] = amount
            elif value is not None:
                self._note("deploy", f"limit {name} {shown(value)}: left out; write limits.{name} by hand", "resources")
        return found

    def _health(self, *, is_worker: bool) -> dict[str, object] | None:
        said = _map(self._said["healthcheck"])
        test = said.get("test")
        words = _split(test) if isinstance(test, list) else ["CMD-SHELL", _interpolated(text_of(test))]
        if said.get("disable") is True or words[:1] == ["NONE"] or len(words) < 2:
            self._note("healthcheck", f"healthcheck {shown(said)}: left out; there is no command in it")
            return None
        command = ["sh", "-c", words[1]] if words[0] == "CMD-SHELL" else words[1:] if words[0] == "CMD" else words
        if is_worker and "inspect" in " ".join(command):
            self._note("healthcheck", f"healthcheck {shown(test)}: left out; a worker tells by itself how it is")
            return None
        health: dict[str, object] = {"command": command}
        for key, name in (("interval", "interval"), ("timeout", "timeout"), ("start_period", "readyTimeout")):
            seconds = seconds_in(text_of(said[key])) if key in said else None
            if seconds and (name != "readyTimeout" or seconds > 1):
                health[name] = span(seconds)
            elif key in said:
                self._note("healthcheck", f"healthcheck.{key} {shown(said[key])}: left out; not a time for it")
        if isinstance(said.get("retries"), int) and said["retries"] > 0:
            health["failures"] = said["retries"]
        for key in sorted(set(said) - {"test", "interval", "timeout", "start_period", "retries"}):
            self._note("healthcheck", f"healthcheck.{key} {shown(said[key])}: left out; it has no counterpart")
        return health

    def _of_command(self) -> Iterator[OfCommand]:
        signal = text_of(self._said.get("stop_signal", "TERM")).upper().removeprefix("SIG")
        if signal in STOP_SIGNALS - {"TERM"}:
            text = f"stop_signal {signal}: left out; fleet stops a worker with TERM"
            yield OfCommand("stop", {"signal": signal}, text, self._at("stop_signal"))
        elif signal not in {"TERM", "15"}:
            self._note("stop_signal", f"stop_signal {signal}: left out; see stop.signal")
        restart, _, tries = text_of(self._said.get("restart")).partition(":")
        is_job = self._name in self._jobs
        if restart == "on-failure":
            policy = {"policy": "onFailure"} | ({"maxCrashes": int(tries)} if tries.isdigit() and int(tries) else {})
            text = f"restart {restart}: left out; fleet starts a worker again whenever it ends"
            yield OfCommand("restart", policy, text, self._at("restart"))
        elif restart in {"", "no", "false", "False"} and not is_job:
            text = "restart no: left out; fleet starts a worker again whenever it ends" if restart else ""
            yield OfCommand("restart", {"policy": "never"}, text, self._at("restart"))
        elif restart not in {"", "no", "false", "False", *(() if is_job else ("always", "unless-stopped"))}:
            self._note("restart", f"restart {restart}: left out; see restart.policy")

    def _after(self) -> Iterator[After]:
        for name, how in _conditions(self._said).items():
            text = f"depends_on {name} ({how}): left out; there is no group {name}; waitFor waits for what is outside"
            yield After(name, f"{self._name}: {text}", self._at("depends_on", name), completed=how == _COMPLETED)

    def _count(self, said: Any) -> int | str:
        if REFERENCE.fullmatch(reference := _interpolated(text_of(said))):
            return reference
        if isinstance(said, int) or text_of(said).isdigit():
            return min(int(said), 10_000)
        self._note("deploy", f"replicas {shown(said)}: not a number; write it by hand", "replicas")
        return 1

    def _secrets(self) -> None:
        for item in self._said.get("secrets") or []:
            name = text_of(item.get("source") if isinstance(item, dict) else item)
            text = f"secret {name}: a file /run/secrets/{name} in the container; left out, use spec.secrets"
            self._note("secrets", text)

    def _at(self, *path: str) -> int:
        return self._document.line("services", self._name, *path)

    def _note(self, key: str, text: str, *below: str) -> None:
        self._draft.note(f"{self._name}: {text}", self._at(*((key,) if key else ()), *below))


def _map(said: Any) -> dict[str, Any]:
    return said if isinstance(said, dict) else {}


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
