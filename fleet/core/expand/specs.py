"""What a replica of a group must be, from what the manifest says and the facts found out before."""

from __future__ import annotations

import math
from dataclasses import replace

from fleet.core.desired import (
    BROKER_GROUP,
    CONTROLLER_GROUP,
    HEALTH_GROUP,
    METRICS_GROUP,
    CanaryPolicy,
    DesiredGroup,
    Price,
    RolloutPolicy,
)
from fleet.core.expand import env_from
from fleet.core.expand.facts import AppFacts, Facts
from fleet.core.manifest import models as text
from fleet.core.manifest.checks.celery import uneven_prefetch
from fleet.core.manifest.checks.pools import pool_refusals
from fleet.core.spec import (
    BrokerSpec,
    HealthCheckSpec,
    Kind,
    LimitsSpec,
    PoolSpec,
    QueueSpec,
    RemoteControlSpec,
    RestartPolicy,
    StopSpec,
    TaskPolicy,
    TracingSpec,
    WaitSpec,
    WorkerSpec,
)
from fleet.core.text.outside_url import without_account
from fleet.errors import Refused
from pools.traits import TRAITS

DEFAULT_POOL = "prefork"
SPARES = 1
_CANARY = CanaryPolicy()
_POOL_ALIASES = {"processes": "prefork", "thread": "threads"}
_BROKER_RESTART = RestartPolicy(backoff_initial_seconds=0.5, backoff_max_seconds=5.0, max_crashes=60)
_CONTROLLER_RESTART = RestartPolicy(backoff_initial_seconds=0.5, backoff_max_seconds=30.0, max_crashes=60)
_CONTROLLER_GRACE_SECONDS = 15.0


def worker_spec(manifest: text.Manifest, name: str, facts: Facts) -> WorkerSpec:
    """The spec of a full replica of the group. Raises Refused for what no later step could run."""
    group, spec, release = manifest.spec.groups[name], manifest.spec, manifest.spec.release
    kind = kind_of(group)
    app = "" if kind == "command" else group.app or spec.app or ""
    if kind != "command" and not app:
        raise Refused(f"group {name!r} names no app", hint="write spec.app or the group's own app, like 'pkg.mod:app'")
    health, logging = group.health or text.Health.empty(), group.logging or text.Logging.empty()
    own, limits = group.release or text.GroupRelease.empty(), group.limits or text.Limits.empty()
    stop = group.stop or text.Stop.empty()
    base = WorkerSpec(kind=kind, fleet=manifest.name, group=name)
    return WorkerSpec(
        kind=kind,
        fleet=manifest.name,
        group=name,
        pool=base.pool if kind == "command" else _pool(name, group, app, facts),
        app=app,
        command=tuple(group.command or ()),
        queues=_queues(group, facts.apps.get(app, AppFacts()) if kind == "worker" else AppFacts()),
        broker=_broker(spec.broker, facts),
        env=tuple(sorted((group.env or {}).items())),
        secret_env=_secret_env(group, facts),
        task=_task(group.task or text.Task.empty()),
        restart=_restart(group.restart or text.Restart.empty(), job=bool(group.job)),
        drain_timeout_seconds=_or((group.drain or text.Drain.empty()).timeout, base.drain_timeout_seconds),
        ready_after_seconds=_or(health.ready_after, base.ready_after_seconds),
        workdir=_real(own.workdir or release.workdir or facts.workdir, facts),
        python=_real(own.python or release.python or facts.python, facts),
        revision=release.revision or (facts.commit if group.job else ""),
        job=bool(group.job),
        code=facts.code,
        fleet_version=facts.own_version if facts.code else "",
        log_level=logging.level or base.log_level,
        log_format=logging.format or base.log_format,
        log_to=logging.to or base.log_to,
        image=release.image if kind == "worker" else base.image,
        node=group.name or "",
        stop=StopSpec(stop.signal or base.stop.signal, group=bool(stop.group)),
        nice=group.nice or 0,
        limits=LimitsSpec(limits.open_files, limits.memory, limits.cpus),
        log_link=_real(group.log_file or "", facts),
        account=facts.accounts.get(name, base.account),
        no_new_privileges=bool(group.no_new_privileges),
        merge_memory=bool(group.merge_memory),
        health_check=_health_check(health),
        wait_for=_wait_for(group.wait_for),
        task_counters=spec.metrics.tasks if kind != "command" else base.task_counters,
        remote_control=_remote_control(group.remote_control or text.RemoteControl.empty()),
        tracing=_tracing(spec.tracing) if kind == "worker" else base.tracing,
    )


def kind_of(group: text.Group) -> Kind:
    """Which of the three kinds of worker the group runs."""
    if group.command is not None:
        return "command"
    return "celery" if group.worker == "celery" else "worker"


def rollout(group: text.Group, replicas: int) -> RolloutPolicy:
    """The rollout policy. By default: one spare, and a quarter of the replicas may be missing.

    A command gets no spare unless the manifest says so: it may well be one that must never run twice, as beat is.
    Without a spare at least one replica may be missing, or nothing could ever be replaced.
    """
    said = group.rollout or text.Rollout.empty()
    strategy = said.strategy or "rolling"
    default = 0 if group.command is not None and said.max_unavailable != 0 else SPARES
    surge = 0 if strategy == "recreate" else _count(said.max_surge, default)
    missing = _count(said.max_unavailable, replicas // 4 if surge else max(1, replicas // 4))
    if strategy == "rolling" and surge == missing == 0:
        raise Refused(
            "rollout: maxSurge and maxUnavailable are both 0, so no replica could ever be replaced",
            hint="allow one spare (maxSurge: 1), or one missing replica (maxUnavailable: 1), or strategy: recreate",
        )
    canaries = () if said.canary is None else _canaries(said.canary, strategy, replicas)
    blue_green = _blue_green(said)
    return RolloutPolicy(
        strategy,
        surge,
        missing,
        said.on_failure or ("rollback" if canaries or blue_green else "pause"),
        min_ready_seconds=_or(said.min_ready, 0.0),
        deadline_seconds=said.deadline,
        canary=canaries[0] if canaries else None,
        peak=said.peak or "surge",
        later_canaries=canaries[1:],
        blue_green=blue_green,
    )


def _canaries(said: text.Canary, strategy: str, replicas: int) -> tuple[CanaryPolicy, ...]:
    """Its comparisons in order, with the replicas that have the new revision by then."""
    if said.replicas is not None and said.percent is not None:
        raise Refused("rollout.canary: replicas and percent at once", hint="write one of them")
    if strategy == "recreate":
        hint = "strategy: rolling keeps old replicas to compare with"
        raise Refused("rollout.canary: with strategy recreate no old replica is left beside the new ones", hint=hint)
    only = text.CanaryStep.empty().model_copy(update={"replicas": said.replicas, "percent": said.percent})
    steps = said.steps or [only]
    return tuple(
        replace(
            _judge(said.judge, _or(step.for_, _or(said.for_, _CANARY.seconds))),
            replicas=_share(step, replicas),
            number=number,
            of=len(steps),
        )
        for number, step in enumerate(steps, 1)
    )


def _share(step: text.CanaryStep, replicas: int) -> int:
    if step.percent is None:
        return _count(step.replicas, _CANARY.replicas)
    return max(1, math.ceil(replicas * step.percent / 100))


def _blue_green(said: text.Rollout) -> CanaryPolicy | None:
    if not said.blue_green:
        return None
    if said.canary is not None or said.strategy == "recreate":
        other = "canary" if said.canary is not None else "strategy: recreate"
        raise Refused(f"rollout: blueGreen and {other} exclude each other", hint="keep one of them")
    wanted = said.blue_green if isinstance(said.blue_green, text.BlueGreen) else text.BlueGreen.empty()
    return replace(_judge(wanted.judge, _or(wanted.for_, _CANARY.seconds)), title="blue-green")


def _judge(said: text.Judge | None, seconds: float) -> CanaryPolicy:
    judge, base = said or text.Judge.empty(), _CANARY
    return CanaryPolicy(
        seconds=seconds,
        failure_rate=base.failure_rate if judge.failure_rate is None else judge.failure_rate / 100,
        latency=_or(judge.latency, base.latency),
        memory=_or(judge.memory, base.memory),
        crashes=_count(judge.crashes, base.crashes),
        min_tasks=_count(judge.min_tasks, base.min_tasks),
    )


def price(group: text.Group, pool: PoolSpec) -> Price:
    """What slots and replicas cost; a pool that bounds a child's memory says its price unless the group does."""
    slot, replica = group.per_slot or text.Price.empty(), group.per_replica or text.Price.empty()
    return Price(
        memory_per_slot_bytes=_count(slot.memory, pool.max_memory_per_child_bytes or 0),
        memory_per_replica_bytes=_count(replica.memory, 0),
        connections_per_slot=tuple(sorted((slot.connections or {}).items())),
        connections_per_replica=tuple(sorted((replica.connections or {}).items())),
    )


def processes(spec: WorkerSpec, capacity: text.Capacity | None) -> int:
    if spec.kind == "command":
        return (capacity or text.Capacity.empty()).processes
    return spec.pool.concurrency + spec.pool.processes_beside_slots if TRAITS[spec.pool.type].own_processes else 1


def embedded_broker(fleet: str, facts: Facts) -> DesiredGroup:
    """The group of the embedded broker. Nothing of the manifest is in its spec, so that no edit restarts it."""
    spec = WorkerSpec(
        kind="command",
        fleet=fleet,
        group=BROKER_GROUP,
        command=facts.embedded_command,
        restart=_BROKER_RESTART,
        workdir="/",
        account=facts.broker_account,
    )
    return _own_program(spec, "the embedded broker")


def controller(manifest: text.Manifest, facts: Facts) -> DesiredGroup:
    """The group of the controller. Of the manifest only the secrets are in its spec: it gets them as the apply read
    them, because what they come from may not be there for it. The rest it reads at every look."""
    fleet = manifest.name
    spec = WorkerSpec(
        kind="command",
        fleet=fleet,
        group=CONTROLLER_GROUP,
        command=(facts.own_python, "-P", "-m", "fleet", "controller", "--fleet", fleet),
        secret_env=tuple((secret_variable(name), name, facts.secrets.get(name, "")) for name in secrets_of(manifest)),
        revision=facts.own_version,
        restart=_CONTROLLER_RESTART,
        drain_timeout_seconds=_CONTROLLER_GRACE_SECONDS,
        workdir="/",
    )
    return _own_program(spec, "heals replicas, and moves the slots of the groups that autoscale")


def metrics(manifest: text.Manifest, facts: Facts) -> DesiredGroup:
    """The group of the program that serves or sends metrics. It asks the broker what waits, and so gets secrets as the
    controller does."""
    fleet, said = manifest.name, manifest.spec.metrics
    command = (facts.own_python, "-P", "-m", "fleet", "metrics", "--fleet", fleet)
    listen = ("--listen", said.listen) if said.listen is not None else ()
    otlp = ("--otlp", said.otlp, "--every", f"{said.every:g}s") if said.otlp is not None else ()
    spec = WorkerSpec(
        kind="command",
        fleet=fleet,
        group=METRICS_GROUP,
        command=(*command, *listen, *otlp),
        secret_env=tuple((secret_variable(name), name, facts.secrets.get(name, "")) for name in secrets_of(manifest)),
        revision=facts.own_version,
        restart=_CONTROLLER_RESTART,
        drain_timeout_seconds=_CONTROLLER_GRACE_SECONDS,
        workdir="/",
    )
    return _own_program(spec, "serves metrics" if listen else "sends metrics")


def health_checker(manifest: text.Manifest, facts: Facts) -> DesiredGroup:
    """The group of the program that makes the health checks; which, launch documents tell it."""
    spec = WorkerSpec(
        kind="command",
        fleet=manifest.name,
        group=HEALTH_GROUP,
        command=(facts.own_python, "-P", "-m", "fleet.backends.supervisor.health_checker", manifest.name),
        revision=facts.own_version,
        restart=_CONTROLLER_RESTART,
        drain_timeout_seconds=_CONTROLLER_GRACE_SECONDS,
        workdir="/",
    )
    return _own_program(spec, "makes the health checks")


def _own_program(spec: WorkerSpec, reason: str) -> DesiredGroup:
    """A program of fleet's own: one of it, never two, and no part of the budget."""
    policy = RolloutPolicy("recreate", 0, 1)
    return DesiredGroup(spec.group, spec, (1,), rollout=policy, capacity_slots=0, system=True, reason=reason)


def secret_variable(secret: str) -> str:
    """The variable in which a program of fleet's own finds a secret."""
    return "FLEET_SECRET_" + secret.upper().replace("-", "_")


def secrets_of(manifest: text.Manifest) -> tuple[str, ...]:
    """Every secret that a group, the broker's URL or a notification uses, sorted; one name stands for all that
    ``envFrom`` takes."""
    names = {secret for group in manifest.spec.groups.values() for secret in (group.secret_env or {}).values()}
    broker = manifest.spec.broker
    if isinstance(broker, text.Broker) and isinstance(broker.url, text.SecretRef):
        names.add(broker.url.secret)
    names |= {secret for one in manifest.spec.notify for _, secret in one.secrets()}
    if env_from.is_used(manifest):
        names.add(env_from.BUNDLE)
    return tuple(sorted(names))


def _pool(name: str, group: text.Group, app: str, facts: Facts) -> PoolSpec:
    said, of_app = group.pool or text.Pool.empty(), facts.apps.get(app, AppFacts())
    kind, class_path = _pool_type(said, of_app, facts)
    if kind == "custom" and not class_path:
        raise Refused(
            f"group {name!r}: pool custom names no class",
            hint="write pool: {type: custom, class: 'module:Class'}, or set FLEET_CUSTOM_WORKER_POOL",
        )
    if said.type is None:
        _check_able(name, group, kind)
    traits = TRAITS[kind]
    slots = traits.slots(said.concurrency or of_app.concurrency, cpus=facts.cpus)
    if group.worker == "celery" and (uneven := uneven_prefetch((group.task or text.Task.empty()).prefetch, slots)):
        raise Refused(f"group {name!r}: task.prefetch: {uneven[0]}", hint=uneven[1])
    return PoolSpec(
        type=kind,
        concurrency=slots,
        class_path=class_path,
        max_tasks_per_child=said.max_tasks_per_child,
        max_memory_per_child_bytes=said.max_memory_per_child,
        max_age_per_child_seconds=said.max_age_per_child,
        start_method=said.start_method or "fork",
        min_concurrency=said.min_concurrency,
    )


def _check_able(name: str, group: text.Group, kind: str) -> None:
    """A pool the manifest does not name is known only now: refuse what it cannot honour."""
    refusals = pool_refusals(group.pool or text.Pool.empty(), group.task or text.Task.empty(), kind)
    if refusals:
        message = "; ".join(message for _, message, _ in refusals)
        raise Refused(
            f"group {name!r}: {message} (the pool comes from the app, or is the default)", hint=refusals[0][2]
        )


def _pool_type(said: text.Pool, of_app: AppFacts, facts: Facts) -> tuple[str, str]:
    """The kind of pool and the class of a custom one: the manifest, else the app, else prefork."""
    kind = said.type or (("custom" if said.class_ else "") or of_app.pool or DEFAULT_POOL)
    kind = _POOL_ALIASES.get(kind, kind)
    if kind not in TRAITS:
        return "custom", kind
    custom_class = said.class_ or facts.custom_pool or ""
    return kind, custom_class if kind == "custom" else ""


def _queues(group: text.Group, of_app: AppFacts) -> tuple[QueueSpec, ...]:
    if not group.queues:
        return tuple(QueueSpec(name) for name in sorted(of_app.queues))
    return tuple(QueueSpec(name, queue.priority or 0) for name, queue in sorted((group.queues or {}).items()))


def _broker(said: text.Broker | str | None, facts: Facts) -> BrokerSpec:
    if said is None:
        return BrokerSpec()
    if isinstance(said, str):
        return BrokerSpec(url=facts.embedded_url)
    if isinstance(said.url, str):
        return BrokerSpec(url=said.url, visibility_timeout_seconds=said.visibility_timeout)
    secret = said.url.secret
    return BrokerSpec("", secret, facts.secrets.get(secret, ""), said.visibility_timeout)


def _secret_env(group: text.Group, facts: Facts) -> tuple[tuple[str, str, str], ...]:
    named = sorted({**env_from.keys_of(group, facts.secrets), **(group.secret_env or {})}.items())
    return tuple((variable, secret, facts.secrets.get(secret, "")) for variable, secret in named)


def _tracing(said: text.Tracing | None) -> TracingSpec:
    return TracingSpec() if said is None else TracingSpec(True, said.otlp or "", said.sample)


def _task(said: text.Task) -> TaskPolicy:
    base = TaskPolicy()
    ahead = said.look_ahead if isinstance(said.look_ahead, text.LookAhead) else text.LookAhead.empty()
    return TaskPolicy(
        time_limit_seconds=said.time_limit,
        soft_time_limit_seconds=said.soft_time_limit,
        acks=said.acks,
        prefetch=said.prefetch,
        max_attempts=_count(said.max_attempts, base.max_attempts),
        rate_limits=tuple(sorted((said.rate_limits or {}).items())),
        dead_letters=said.dead_letters,
        look_ahead_seconds=_or(ahead.time, base.look_ahead_seconds),
        look_ahead_most=0 if said.look_ahead == "off" else _count(ahead.most, base.look_ahead_most),
    )


def _remote_control(said: text.RemoteControl) -> RemoteControlSpec:
    base = RemoteControlSpec()
    return RemoteControlSpec(
        enabled=base.enabled if said.enabled is None else said.enabled,
        max_slots=_count(said.max_slots, base.max_slots),
        allow=None if said.allow is None else tuple(sorted(set(said.allow))),
    )


def _restart(said: text.Restart, *, job: bool) -> RestartPolicy:
    base, backoff = RestartPolicy(), said.backoff or text.Backoff.empty()
    return RestartPolicy(
        backoff_initial_seconds=_or(backoff.initial, base.backoff_initial_seconds),
        backoff_max_seconds=_or(backoff.max, base.backoff_max_seconds),
        max_crashes=_count(said.max_crashes, base.max_crashes),
        window_seconds=_or(said.window, base.window_seconds),
        policy=said.policy or ("never" if job else base.policy),
    )


def _health_check(said: text.Health) -> HealthCheckSpec:
    base, request = HealthCheckSpec(), said.http
    if said.command is None and request is None:
        return base
    return HealthCheckSpec(
        command=tuple(said.command or ()),
        port=request.port if request is not None else base.port,
        path=request.path if request is not None else base.path,
        host=request.host if request is not None else base.host,
        interval_seconds=_or(said.interval, base.interval_seconds),
        timeout_seconds=_or(said.timeout, base.timeout_seconds),
        failures=_count(said.failures, base.failures),
        within_seconds=_or(said.ready_timeout, base.within_seconds),
    )


def _wait_for(said: text.WaitFor | None) -> WaitSpec:
    """No attempt logs in anywhere, so that no password gets into the spec."""
    if said is None:
        return WaitSpec()
    urls = tuple(without_account(url) for url in said.urls)
    return WaitSpec(urls, _or(said.timeout, WaitSpec().timeout_seconds))


def _real(path: str, facts: Facts) -> str:
    return facts.real_paths.get(path, path)


def _or(said: float | None, default: float) -> float:
    return default if said is None else said


def _count(said: int | None, default: int) -> int:
    return default if said is None else said
