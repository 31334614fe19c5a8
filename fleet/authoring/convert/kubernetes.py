"""Kubernetes manifests: Deployments and StatefulSets, their ConfigMaps, autoscalers and KEDA's ScaledObjects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fleet.authoring.convert.celery_options import celery_worker
from fleet.authoring.convert.draft import After, Draft, DraftGroup, Program
from fleet.authoring.convert.limits import memory, processors
from fleet.authoring.convert.probes import PROBE_READ, probe_check, probe_times, startup_seconds
from fleet.authoring.convert.programs import drafted
from fleet.authoring.convert.yaml_lines import Document, documents, shown, text_of
from fleet.authoring.yaml_writer import span
from fleet.errors import UsageError

KIND = "kubernetes"
EXPECTED = "give manifests with apiVersion and kind, among them a Deployment or a StatefulSet"
_SETS = frozenset({"Deployment", "StatefulSet", "ReplicaSet", "Job"})
_SCALERS = frozenset({"HorizontalPodAutoscaler", "ScaledObject"})
_CONTAINER_READ = frozenset(
    {"name", "command", "args", "env", "envFrom", "image", "workingDir", "securityContext", "resources"}
    | {"livenessProbe", "readinessProbe", "startupProbe"}
)
_POD_READ = frozenset({"containers", "initContainers", "terminationGracePeriodSeconds", "securityContext"})
_SPEC_READ = frozenset({"replicas", "template", "selector"})
_LEFT_OUT = {
    "ports": "a program on this machine listens where it is told to",
    "volumeMounts": "a program on this machine sees this machine's files",
    "volumes": "a program on this machine sees this machine's files",
    "imagePullPolicy": "there is no image",
    "imagePullSecrets": "there is no image",
    "lifecycle": "fleet stops with TERM",
    "strategy": "see rollout",
    "updateStrategy": "see rollout",
    "restartPolicy": "fleet starts a replica again whenever it ends",
}


def is_kind(text: str) -> bool:
    found = re.search(r"(?m)^apiVersion:\s*[\"']?(?!workerfleet\.dev)\S", text)
    return found is not None and re.search(r"(?m)^kind:", text) is not None


@dataclass(slots=True)
class _Objects:
    """What the file holds: (document, path of the object in it, object) by kind."""

    by_kind: dict[str, list[tuple[Document, tuple[str | int, ...], dict[str, Any]]]] = field(default_factory=dict)

    def named(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((each for _, _, each in self.by_kind.get(kind, []) if _name(each) == name), None)


def read(text: str, draft: Draft) -> None:
    """Add a group for each container of each set."""
    objects = _Objects()
    for document in documents(text, source=draft.source, expected=EXPECTED):
        _collect(document, objects)
    if not objects.by_kind:
        raise UsageError(f"{draft.source}: there is no Kubernetes object in it", hint=EXPECTED)
    for kind in sorted(objects.by_kind):
        for document, path, each in objects.by_kind[kind]:
            if kind in _SETS:
                _Set(draft, objects, document, path, each).read()
            elif kind not in {"ConfigMap", *_SCALERS}:
                why = "runs by the clock" if kind == "CronJob" else "it has no counterpart"
                draft.note(f"{kind} {_name(each)}: left out; {why}", document.line(*path))
    _scale(draft, objects)


def _collect(document: Document, objects: _Objects) -> None:
    value = document.value
    if not isinstance(value, dict) or "kind" not in value:
        return
    if value["kind"] == "List" and isinstance(value.get("items"), list):
        items = [(("items", index), item) for index, item in enumerate(value["items"]) if isinstance(item, dict)]
        for path, item in items:
            objects.by_kind.setdefault(text_of(item.get("kind")), []).append((document, path, item))
        return
    objects.by_kind.setdefault(text_of(value["kind"]), []).append((document, (), value))


def _name(each: Mapping[str, Any]) -> str:
    return text_of(_map(each.get("metadata")).get("name"))


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class _Set:
    """One Deployment or StatefulSet on its way to groups."""

    def __init__(
        self, draft: Draft, objects: _Objects, document: Document, path: tuple[str | int, ...], said: dict[str, Any]
    ) -> None:
        self._draft, self._objects, self._document, self._path = draft, objects, document, path
        self._name, self._spec = _name(said), _map(said.get("spec"))
        self._is_job = said.get("kind") == "Job"
        self._pod = _map(_map(self._spec.get("template")).get("spec"))
        for key in sorted(set(_map(said.get("metadata"))) - {"name"}):
            self._note(f"metadata.{key} {shown(said['metadata'][key])}: left out", "metadata", key)

    def read(self) -> None:
        """Add the groups; the first container has the name of the set."""
        for key in sorted(set(self._spec) - _SPEC_READ):
            self._note(self._left(key, self._spec[key]), "spec", key)
        for key in sorted(set(self._pod) - _POD_READ):
            self._note(self._left(key, self._pod[key]), "spec", "template", "spec", key)
        first: list[str] = []
        for index, container in enumerate(self._pod.get("initContainers") or []):
            if isinstance(container, dict):
                first += self._init_container(index, container, first)
        for index, container in enumerate(self._pod.get("containers") or []):
            if isinstance(container, dict):
                name = self._name if index == 0 else f"{self._name}-{text_of(container.get('name'))}"
                where = ("spec", "template", "spec", "containers", index)
                self._container(name, container, where, after=first, is_job=self._is_job)

    def _init_container(self, index: int, container: dict[str, Any], after: list[str]) -> list[str]:
        """A job; its name, or nothing where it has no command."""
        where = ("spec", "template", "spec", "initContainers", index)
        name = f"{self._name}-{text_of(container.get('name'))}"
        if not (_words(container, "command") or _words(container, "args")):
            self._note(f"initContainer {container.get('name')}: left out: it has no command", *where)
            return []
        text = f"initContainer {container.get('name')}: a job: it runs once for each version, not before each replica"
        self._note(text, *where)
        self._container(name, container, where, after=after, is_job=True)
        return [name]

    def _container(
        self, name: str, container: dict[str, Any], where: tuple[str | int, ...], *, after: list[str], is_job: bool
    ) -> None:
        program = Program(name, self._at(*where))
        self._environment(program, container, where)
        words = [*_words(container, "command"), *_words(container, "args")]
        if not words:
            self._note(f"{name}: left out: it has no command, and what its image runs is not known", *where)
            return
        if "command" not in container:
            text = "args without command: taken as the whole command; write what the image's entrypoint runs before"
            self._note(f"{name}: {text}", *where, "args")
        program.words = [_expanded(word, program.env) for word in words]
        self._account(program, container, where)
        if folder := text_of(container.get("workingDir")):
            self._note(f"workingDir {folder}: a folder of the image; left out, set release.workdir", *where)
        self._note(f"image {shown(container.get('image'))}: left out; the program runs on this machine", *where)
        for key in sorted(set(container) - _CONTAINER_READ):
            self._note(self._left(key, container[key]), *where, key)
        count = 1 if is_job else self._replicas()
        program.fields = {"replicas": count, **({"job": True} if is_job else {}), **self._grace()}
        if limits := self._limits(container, where):
            program.fields["limits"] = limits
        if health := self._health(container, where, is_worker=celery_worker(program.words)):
            program.fields["health"] = health
        program.after = [After(other, completed=True) for other in after]
        if group := drafted(self._draft, program):
            group.name = name
            self._draft.add(group)

    def _limits(self, container: Mapping[str, Any], where: tuple[str | int, ...]) -> dict[str, object]:
        resources = _map(container.get("resources"))
        for key in sorted(set(resources) - {"limits"}):
            self._note(f"resources.{key} {shown(resources[key])}: left out; see perReplica.memory", *where, "resources")
        found: dict[str, object] = {}
        for key, value in _map(resources.get("limits")).items():
            amount = _AMOUNTS[key][1](text_of(value)) if key in _AMOUNTS else None
            if amount is None:
                self._note(f"resources.limits.{key} {shown(value)}: left out; see limits", *where, "resources")
            else:
                found[_AMOUNTS[key][0]] = amount
        return found

    def _health(
        self, container: Mapping[str, Any], where: tuple[str | int, ...], *, is_worker: bool
    ) -> dict[str, object] | None:
        """The check of the liveness probe, else of the readiness probe; the startup probe says how long it may take."""
        said = {name: _map(container[name]) for name in ("livenessProbe", "readinessProbe") if name in container}
        found: dict[str, object] | None = None
        for name, probe in said.items():
            check = probe_check(probe, container)
            if isinstance(check, str) or (is_worker and "inspect" in str(check)):
                why = check if isinstance(check, str) else "a worker tells by itself how it is"
                self._note(f"{name} {shown(probe)}: left out; {why}", *where, name)
            elif found is None:
                found = {**check, **probe_times(probe)}
                for key in sorted(set(probe) - PROBE_READ):
                    self._note(f"{name}.{key} {shown(probe[key])}: left out; it has no counterpart", *where, name)
            elif check != {key: found[key] for key in check if key in found}:
                self._note(f"{name} {shown(probe)}: left out; a group has one check", *where, name)
        if "startupProbe" in container:
            seconds = startup_seconds(_map(container["startupProbe"]))
            found = {**(found or {}), "readyTimeout": span(seconds)}
        return found

    def _left(self, key: str, value: Any) -> str:
        return f"{key} {shown(value)}: left out; {_LEFT_OUT.get(key, 'it has no counterpart')}"

    def _replicas(self) -> int:
        said = self._spec.get("replicas", 1)
        if isinstance(said, int):
            return min(max(said, 0), 10_000)
        self._note(f"replicas {shown(said)}: not a number; write it by hand", "spec", "replicas")
        return 1

    def _grace(self) -> dict[str, object]:
        seconds = self._pod.get("terminationGracePeriodSeconds", 30)
        return {"drain": {"timeout": span(float(seconds) if isinstance(seconds, int) else 30.0)}}

    def _account(self, program: Program, container: dict[str, Any], where: tuple[str | int, ...]) -> None:
        pod, own = _map(self._pod.get("securityContext")), _map(container.get("securityContext"))
        both = {**pod, **own}
        program.user, program.group = text_of(both.pop("runAsUser", "")), text_of(both.pop("runAsGroup", ""))
        for key in sorted(both):
            self._note(f"securityContext.{key} {shown(both[key])}: left out; it has no counterpart", *where)

    def _environment(self, program: Program, container: dict[str, Any], where: tuple[str | int, ...]) -> None:
        for index, item in enumerate(container.get("envFrom") or []):
            self._env_from(program, _map(item), (*where, "envFrom", index))
        for index, item in enumerate(container.get("env") or []):
            item = _map(item)
            name, source = text_of(item.get("name")), _map(item.get("valueFrom"))
            if not source:
                program.env[name] = _expanded(text_of(item.get("value")), program.env)
            elif ref := _map(source.get("secretKeyRef")):
                wanted = f"{text_of(ref.get('name'))}-{text_of(ref.get('key'))}"
                program.secret_env[name] = self._draft.secret(wanted, {"env": name})
                text = f"{name}: secret {wanted}: read from the variable {name} of the fleet command; see spec.secrets"
                self._note(text, *where, "env", index)
            elif ref := _map(source.get("configMapKeyRef")):
                self._config_value(program, name, ref, (*where, "env", index))
            else:
                self._note(f"{name}: {shown(source)}: left out; it is about pods", *where, "env", index)

    def _config_value(self, program: Program, name: str, ref: Mapping[str, Any], where: tuple[str | int, ...]) -> None:
        config = self._objects.named("ConfigMap", text_of(ref.get("name")))
        data = _map(_map(config).get("data"))
        if text_of(ref.get("key")) in data:
            program.env[name] = text_of(data[text_of(ref.get("key"))])
            return
        program.inherit[name] = ""
        text = f"{name}: key {ref.get('key')} of ConfigMap {ref.get('name')}: not in this file; taken from the"
        self._note(f"{text} environment of the fleet command", *where)

    def _env_from(self, program: Program, item: Mapping[str, Any], where: tuple[str | int, ...]) -> None:
        prefix = text_of(item.get("prefix"))
        config = text_of(_map(item.get("configMapRef")).get("name"))
        found = self._objects.named("ConfigMap", config) if config else None
        if found is not None:
            program.env |= {f"{prefix}{key}": text_of(value) for key, value in _map(found.get("data")).items()}
            return
        secret = text_of(_map(item.get("secretRef")).get("name"))
        what = f"ConfigMap {config}" if config else f"Secret {secret}"
        self._note(f"envFrom {what}: not in this file; write its variables under env or secretEnv", *where)

    def _at(self, *path: str | int) -> int:
        return self._document.line(*self._path, *path)

    def _note(self, text: str, *path: str | int) -> None:
        text = text if text.startswith(f"{self._name}:") else f"{self._name}: {text}"
        self._draft.note(text, self._at(*path))


_AMOUNTS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "memory": ("memory", partial(memory, decimal=True)),
    "cpu": ("cpus", processors),
}


def _words(container: Any, key: str) -> list[str]:
    said = _map(container).get(key)
    return [text_of(word) for word in said] if isinstance(said, list) else []


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """``$(X)`` is a variable of the container; ``$$(X)`` are the characters themselves."""

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        return env.get(match[2], match[0])

    return re.sub(r"\$(\$?)\(([A-Za-z_][A-Za-z0-9_]*)\)", one, text)


def _scale(draft: Draft, objects: _Objects) -> None:
    """Autoscalers put bounds in slots where the group had a number of replicas."""
    for kind in sorted(_SCALERS):
        for document, path, each in objects.by_kind.get(kind, []):
            spec = _map(each.get("spec"))
            target = text_of(_map(spec.get("scaleTargetRef")).get("name"))
            group = next((g for g in draft.groups.values() if g.name == target and g.source == draft.source), None)
            line = document.line(*path)
            if group is None:
                draft.note(f"{kind} {_name(each)}: left out; there is no group {target}", line)
                continue
            low = spec.get("minReplicas", spec.get("minReplicaCount", 1 if kind != "ScaledObject" else 0))
            high = spec.get("maxReplicas", spec.get("maxReplicaCount", 100))
            _autoscale(draft, group, (low, high), line)
            for key in sorted(set(spec) - _SCALER_READ):
                text = f"{kind}.{key} {shown(spec[key])}: left out; the controller moves slots by how long tasks wait"
                draft.note(f"{target}: {text}", document.line(*path, "spec", key))


_SCALER_READ = frozenset({"scaleTargetRef", "minReplicas", "maxReplicas", "minReplicaCount", "maxReplicaCount"})


def _autoscale(draft: Draft, group: DraftGroup, bounds: tuple[Any, Any], line: int) -> None:
    low, high = (int(bound) if isinstance(bound, int) else 1 for bound in bounds)
    pool = group.fields.get("pool")
    slots = pool.get("concurrency") if isinstance(pool, dict) else 1 if pool == "solo" else None
    if group.is_celery and not isinstance(slots, int):
        text = f"{low} to {high} replicas: left out; give the worker -c, so that slots can be counted"
        draft.note(f"{group.name}: {text}", line)
        return
    each = int(str(slots or 1))
    del group.fields["replicas"]
    group.fields["autoscale"] = {"min": low * each, "max": max(high, low, 1) * each, "unit": each}
    if not group.is_celery:
        group.fields["capacity"] = {"slots": 1}
        return
    text = "autoscale: the controller does not see how busy Celery's worker is; `worker: fleet` makes it move"
    draft.note(f"{group.name}: {text}", line)
