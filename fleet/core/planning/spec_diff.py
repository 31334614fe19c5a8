"""What changed between two specs, in the words of the manifest. Values of variables, secrets and URLs stay hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fleet.core.expand import env_from
from fleet.core.spec import HealthCheckSpec, WorkerSpec
from fleet.core.text.format import duration, listed, quoted, size
from fleet.core.text.mask import masked_text

NONE = "none"


@dataclass(frozen=True, slots=True)
class _Field:
    """One plain field: its manifest path, how to read it and how to show it."""

    path: str
    read: Callable[[WorkerSpec], Any]
    show: Callable[[Any], str] = str


_KINDS = {"worker": "fleet", "celery": "celery", "command": "command"}

_FIELDS = (
    _Field("worker", lambda spec: _KINDS[spec.kind]),
    _Field("app", lambda spec: spec.app),
    _Field("command", lambda spec: masked_text(" ".join(spec.command)), quoted),
    _Field("pool", lambda spec: spec.pool.type),
    _Field("pool.class", lambda spec: spec.pool.class_path),
    _Field("pool.concurrency", lambda spec: spec.pool.concurrency),
    _Field("pool.minConcurrency", lambda spec: spec.pool.min_concurrency),
    _Field("pool.maxTasksPerChild", lambda spec: spec.pool.max_tasks_per_child),
    _Field("pool.maxMemoryPerChild", lambda spec: spec.pool.max_memory_per_child_bytes, size),
    _Field("pool.maxAgePerChild", lambda spec: spec.pool.max_age_per_child_seconds, duration),
    _Field("pool.startMethod", lambda spec: spec.pool.start_method),
    _Field("task.timeLimit", lambda spec: spec.task.time_limit_seconds, duration),
    _Field("task.softTimeLimit", lambda spec: spec.task.soft_time_limit_seconds, duration),
    _Field("task.acks", lambda spec: spec.task.acks),
    _Field("task.prefetch", lambda spec: spec.task.prefetch),
    _Field("task.lookAhead.most", lambda spec: spec.task.look_ahead_most),
    _Field("task.lookAhead.time", lambda spec: spec.task.look_ahead_seconds, duration),
    _Field("task.maxAttempts", lambda spec: spec.task.max_attempts),
    _Field("drain.timeout", lambda spec: spec.drain_timeout_seconds, duration),
    _Field("restart.backoff.initial", lambda spec: spec.restart.backoff_initial_seconds, duration),
    _Field("restart.backoff.max", lambda spec: spec.restart.backoff_max_seconds, duration),
    _Field("restart.policy", lambda spec: spec.restart.policy),
    _Field("job", lambda spec: spec.job),
    _Field("restart.maxCrashes", lambda spec: spec.restart.max_crashes),
    _Field("restart.window", lambda spec: spec.restart.window_seconds, duration),
    _Field("health.readyAfter", lambda spec: spec.ready_after_seconds, duration),
    _Field("health.command", lambda spec: masked_text(" ".join(spec.health_check.command)), quoted),
    _Field("health.http", lambda spec: _request(spec.health_check)),
    _Field("health.interval", lambda spec: spec.health_check.interval_seconds, duration),
    _Field("health.timeout", lambda spec: spec.health_check.timeout_seconds, duration),
    _Field("health.failures", lambda spec: spec.health_check.failures),
    _Field("health.readyTimeout", lambda spec: spec.health_check.within_seconds, duration),
    _Field("waitFor", lambda spec: listed(spec.wait_for.urls)),
    _Field("waitFor.timeout", lambda spec: spec.wait_for.timeout_seconds, duration),
    _Field("logging.level", lambda spec: spec.log_level),
    _Field("logging.format", lambda spec: spec.log_format),
    _Field("logging.to", lambda spec: spec.log_to),
    _Field("release.workdir", lambda spec: spec.workdir, quoted),
    _Field("release.python", lambda spec: spec.python, quoted),
    _Field("name", lambda spec: spec.node),
    _Field("stop.signal", lambda spec: spec.stop.signal),
    _Field("stop.group", lambda spec: spec.stop.group),
    _Field("nice", lambda spec: spec.nice),
    _Field("limits.openFiles", lambda spec: spec.limits.open_files),
    _Field("limits.memory", lambda spec: spec.limits.memory_bytes, size),
    _Field("limits.cpus", lambda spec: spec.limits.cpus, "{:g}".format),
    _Field("logFile", lambda spec: spec.log_link, quoted),
    _Field("code", lambda spec: spec.code),
    _Field("fleet", lambda spec: spec.fleet_version),
    _Field("release.revision", lambda spec: spec.revision, quoted),
    _Field("release.image", lambda spec: spec.image),
    _Field("user", lambda spec: spec.account.user),
    _Field("user's uid", lambda spec: spec.account.uid),
    _Field("group's gid", lambda spec: spec.account.gid),
    _Field("noNewPrivileges", lambda spec: spec.no_new_privileges),
    _Field("mergeMemory", lambda spec: spec.merge_memory),
    _Field("remoteControl.enabled", lambda spec: spec.remote_control.enabled),
    _Field("remoteControl.maxSlots", lambda spec: spec.remote_control.max_slots),
    _Field("remoteControl.allow", lambda spec: _allowed(spec.remote_control.allow)),
    _Field("metrics.tasks", lambda spec: "on" if spec.task_counters else "off"),
    _Field("tracing", lambda spec: "on" if spec.tracing.on else "off"),
    _Field("tracing.otlp", lambda spec: spec.tracing.otlp, quoted),
    _Field("tracing.sample", lambda spec: spec.tracing.sample, "{:g}".format),
    _Field("broker.visibilityTimeout", lambda spec: spec.broker.visibility_timeout_seconds, duration),
)


def changes(old: WorkerSpec, new: WorkerSpec) -> tuple[str, ...]:
    """Every difference, one sentence part each, environment first."""
    return (
        *_env(old, new),
        *_secret_env(old, new),
        *_plain(old, new),
        *(["what waits for it changes"] if old.followers != new.followers else []),
        *_rate_limits(old, new),
        *_queues(old, new),
        *_broker(old, new),
    )


def reason(old: WorkerSpec | None, new: WorkerSpec, *, old_digest: str, new_digest: str) -> str:
    """Why a replica is replaced, in one line."""
    said = changes(old, new) if old is not None else ()
    return listed(said) if said else f"spec {old_digest or 'unknown'} -> {new_digest}"


def _plain(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    for field in _FIELDS:
        before, after = field.read(old), field.read(new)
        if before != after:
            yield f"{field.path} {_shown(field, before)} -> {_shown(field, after)}"


def _allowed(names: tuple[str, ...] | None) -> str:
    return "every command" if names is None else ", ".join(names)


def _shown(field: _Field, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return NONE if value is None or value == "" else field.show(value)


def _request(check: HealthCheckSpec) -> str:
    host = "" if check.host == HealthCheckSpec().host else f" as {check.host}"
    return f"{check.path} at port {check.port}{host}" if check.port else ""


def _env(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    before, after = dict(old.env), dict(new.env)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"env.{name} {'set' if name not in before else 'removed' if name not in after else 'changed'}"


def _secret_env(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    before = {name: (secret, mark) for name, secret, mark in old.secret_env}
    after = {name: (secret, mark) for name, secret, mark in new.secret_env}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            sources = {pair[0] for pair in (before.get(name), after.get(name)) if pair}
            field = "secretEnv" if not any(map(env_from.is_key, sources)) else "envFrom"
            yield f"{field}.{name}: {_secret(before.get(name), after.get(name))}"


def _secret(before: tuple[str, str] | None, after: tuple[str, str] | None) -> str:
    if before is None or after is None:
        return "added" if before is None else "removed"
    if env_from.is_key(after[0]) and before[0] == after[0]:
        return "changed"
    return f"secret '{before[0]}' changed" if before[0] == after[0] else f"secret '{before[0]}' -> '{after[0]}'"


def _rate_limits(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    before, after = dict(old.task.rate_limits), dict(new.task.rate_limits)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"task.rateLimits.{name} {before.get(name, NONE)} -> {after.get(name, NONE)}"


def _queues(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    before, after = ({queue.name: queue.priority for queue in spec.queues} for spec in (old, new))
    moved = [f"+{name}" for name in sorted(after.keys() - before.keys())]
    moved += [f"-{name}" for name in sorted(before.keys() - after.keys())]
    if moved:
        yield f"queues {listed(moved, mark=' ')}"
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"queues.{name}.priority {before[name]} -> {after[name]}"


def _broker(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    before, after = old.broker, new.broker
    if before.secret and before.secret == after.secret and before.fingerprint != after.fingerprint:
        yield f"broker.url: secret '{after.secret}' changed"
    elif (before.url, before.secret) != (after.url, after.secret):
        yield "broker.url changed"
