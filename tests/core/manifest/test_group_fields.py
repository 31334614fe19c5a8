"""Fields of single groups: what they mean for a replica, where mistakes are told, what they do to digests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.planning import spec_diff
from fleet.core.spec import LimitsSpec, RemoteControlSpec, StopSpec, WorkerSpec, digest
from fleet.errors import ManifestError

HEAD = (
    "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\n"
    "spec:\n  app: shop:app\n  broker: {url: redis://localhost/0}\n  groups:\n"
)
COMMAND = "command: [serve], replicas: 1"
WORKER = "pool: solo, queues: [a], replicas: 1"


def spec_of(fields: str) -> WorkerSpec:
    manifest = parse([Source("m", f"{HEAD}    a: {{{fields}}}\n")], environ={}).manifest
    return expand(manifest, facts=Facts(python="/py", workdir="/srv")).groups["a"].spec


def problems(fields: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ManifestError) as caught:
        spec_of(fields)
    return [(one.line, one.path, one.message) for one in caught.value.problems]


FIELDS: list[tuple[str, str, dict[str, Any], str]] = [
    (COMMAND, "release: {workdir: /elsewhere}", {"workdir": "/elsewhere"}, "release.workdir"),
    (WORKER, "release: {python: /other}", {"python": "/other"}, "release.python"),
    (COMMAND, "stop: {signal: QUIT}", {"stop": StopSpec("QUIT")}, "stop.signal TERM -> QUIT"),
    (COMMAND, "stop: {group: true}", {"stop": StopSpec(group=True)}, "stop.group false -> true"),
    (COMMAND, "nice: 10", {"nice": 10}, "nice 0 -> 10"),
    (WORKER, "mergeMemory: true", {"merge_memory": True}, "mergeMemory false -> true"),
    (COMMAND, "limits: {openFiles: 1024}", {"limits": LimitsSpec(open_files=1024)}, "limits.openFiles none -> 1024"),
    (WORKER, "limits: {memory: 1Gi}", {"limits": LimitsSpec(memory_bytes=1 << 30)}, "limits.memory none -> 1Gi"),
    (WORKER, "limits: {cpus: 0.5}", {"limits": LimitsSpec(cpus=0.5)}, "limits.cpus none -> 0.5"),
    (COMMAND, "logFile: '/l/{replica}'", {"log_link": "/l/{replica}"}, "logFile"),
    (
        WORKER,
        "remoteControl: {enabled: false}",
        {"remote_control": RemoteControlSpec(enabled=False)},
        "remoteControl.enabled",
    ),
    (
        WORKER,
        "remoteControl: {maxSlots: 8}",
        {"remote_control": RemoteControlSpec(max_slots=8)},
        "remoteControl.maxSlots 10000 -> 8",
    ),
    (
        WORKER,
        "remoteControl: {allow: [revoke, ping, revoke]}",
        {"remote_control": RemoteControlSpec(allow=("ping", "revoke"))},
        "remoteControl.allow every command -> ping, revoke",
    ),
    (WORKER, "name: 'celery@{group}-{index}'", {"node": "celery@{group}-{index}"}, "name none -> celery@"),
]


@pytest.mark.parametrize(("base", "field", "differs", "said"), FIELDS)
def test_a_field_reaches_the_replica_changes_its_digest_and_is_named_by_the_plan(
    base: str, field: str, differs: dict[str, Any], said: str
) -> None:
    before, after = spec_of(base), spec_of(f"{base}, {field}")
    assert after == replace(before, **differs)
    assert digest(after) != digest(before)
    assert WorkerSpec.from_json(after.to_json()) == after
    (change,) = spec_diff.changes(before, after)
    assert change.startswith(said)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        (f"{COMMAND}, name: x", "spec.groups.a.name"),
        (f"{COMMAND}, remoteControl: {{enabled: false}}", "spec.groups.a.remoteControl"),
        (f"{WORKER}, worker: celery, remoteControl: {{enabled: false}}", "spec.groups.a.remoteControl"),
        (f"{WORKER}, env: {{FLEET_MAX_MESSAGE_BYTES: '1 MiB'}}", "spec.groups.a.env.FLEET_MAX_MESSAGE_BYTES"),
        (f"{WORKER}, env: {{FLEET_MINGLE_SECONDS: soon}}", "spec.groups.a.env.FLEET_MINGLE_SECONDS"),
        (f"{WORKER}, env: {{FLEET_RECORD: x}}", "spec.groups.a.env.FLEET_RECORD"),
        (f"{WORKER}, remoteControl: {{maxSlots: 0}}", "spec.groups.a.remoteControl.maxSlots"),
        (f"{WORKER}, remoteControl: {{allow: [a b]}}", "spec.groups.a.remoteControl.allow[0]"),
        (f"{WORKER}, stop: {{signal: INT}}", "spec.groups.a.stop"),
        (f"{COMMAND}, stop: {{signal: KILL}}", "spec.groups.a.stop.signal"),
        (f"{COMMAND}, nice: 20", "spec.groups.a.nice"),
        (f"{COMMAND}, limits: {{memory: 5}}", "spec.groups.a.limits.memory"),
        (f"{COMMAND}, limits: {{memory: 1Ki}}", "spec.groups.a.limits.memory"),
        (f"{COMMAND}, limits: {{cpus: 0}}", "spec.groups.a.limits.cpus"),
        (f"{COMMAND}, logFile: '/x/{{nobody}}'", "spec.groups.a.logFile"),
        (f"{COMMAND}, logFile: /x/", "spec.groups.a.logFile"),
        (f"{WORKER.replace('1', '2')}, name: one", "spec.groups.a.name"),
        (f"{WORKER}, name: a/b", "spec.groups.a.name"),
        (f"{COMMAND.replace('1', '2')}, logFile: /x", "spec.groups.a.logFile"),
        (f"{COMMAND}, release: {{image: x}}", "spec.groups.a.release.image"),
    ],
)
def test_a_mistake_is_told_with_its_place(fields: str, path: str) -> None:
    assert [(line, where) for line, where, _ in problems(fields)] == [(8, path)]


@pytest.mark.parametrize(("name", "value"), [("FLEET_MINGLE_SECONDS", "0"), ("FLEET_MAX_MESSAGE_BYTES", "1048576")])
def test_settings_of_workers_may_be_in_a_groups_environment(name: str, value: str) -> None:
    assert spec_of(f"{WORKER}, env: {{{name}: '{value}'}}").env == ((name, value),)
