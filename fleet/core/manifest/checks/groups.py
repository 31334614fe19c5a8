"""What spans several fields of one group."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from fleet.core.desired import CanaryPolicy
from fleet.core.manifest.checks.celery import celery
from fleet.core.manifest.checks.context import CheckContext
from fleet.core.manifest.checks.health import health, wait_for
from fleet.core.manifest.checks.pools import pool_refusals
from fleet.core.manifest.merge import OF_WORKERS_ONLY
from fleet.core.manifest.models import BlueGreen, Broker, Canary, CanaryStep, Group, Pool, Rollout, Share, Task
from fleet.core.manifest.tree import Path
from fleet.core.spec import DRAIN_TIMEOUT_SECONDS
from fleet.core.text.format import duration, shown
from fleet.core.text.mask import holds_secret

RESERVED_ENV_PREFIX = "FLEET_"
WORKER_SETTINGS = {
    "FLEET_MINGLE_SECONDS": (r"[0-9]{1,4}(\.[0-9]{1,3})?", "a number of seconds"),
    "FLEET_MAX_MESSAGE_BYTES": (r"[1-9][0-9]{0,17}", "a whole number of bytes"),
}
"""Variables with the prefix that a group may set for its workers, and what they hold."""
LONGEST_VARIABLE_BYTES = 131_072


def _scaling(context: CheckContext, path: Path, group: Group) -> None:
    given = [name for name in ("replicas", "share", "autoscale") if getattr(group, name) is not None]
    if not given:
        hint = "add `replicas: 1`, or share or autoscale for a part of spec.concurrency"
        context.problem(path, "the group does not say how many replicas it has", hint)
    elif len(given) > 1:
        hint = f"keep one; an overlay removes the other with null: `{given[0]}: null`"
        context.problem((*path, given[-1]), f"{' and '.join(given)} exclude each other", hint)


def _part(context: CheckContext, path: Path, group: Group) -> None:
    for name in ("share", "autoscale"):
        part: Share | None = getattr(group, name)
        if part is None:
            continue
        if context.manifest.spec.concurrency is None and not context.is_broken("spec", "concurrency"):
            hint = "add `concurrency:` to spec: the slots of all groups together"
            context.problem((*path, name), f"{name} needs spec.concurrency, which is not given", hint)
        _part_bounds(context, (*path, name), part)
        if group.command is not None and not (group.capacity and group.capacity.slots):
            hint = "give replicas, or say what one brings: `capacity: {slots: 1}`"
            context.problem((*path, name), "a command without slots has no part of the budget", hint)


def _part_bounds(context: CheckContext, path: Path, part: Share) -> None:
    if part.max is None:
        return
    if part.min > part.max:
        context.problem((*path, "min"), f"min {part.min} is more than max {part.max}", "lower min or raise max")
    elif -(-part.min // part.unit) * part.unit > part.max // part.unit * part.unit:
        message = f"no multiple of unit {part.unit} lies between min {part.min} and max {part.max}"
        context.problem((*path, "unit"), message, "choose bounds that are multiples of unit")


def _idle(context: CheckContext, path: Path, group: Group) -> None:
    part = group.autoscale
    if part is not None and part.idle_after is not None and part.min > 0:
        hint = "write `min: 0`, or remove idleAfter"
        context.problem((*path, "autoscale", "idleAfter"), f"idleAfter has no effect with min {part.min}", hint)


def _command_alone(context: CheckContext, path: Path, group: Group) -> None:
    if group.command is None:
        if group.stop is not None:
            hint = "remove it; a worker finishes its tasks within drain.timeout"
            context.problem((*path, "stop"), "stop is for a command, and the group has none", hint)
        if group.capacity is not None:
            hint = "remove it; fleet knows what its workers bring"
            context.problem((*path, "capacity"), "capacity is for a command, and the group has none", hint)
        return
    for name in sorted(OF_WORKERS_ONLY & group.written()):
        hint = f"remove {name}, or remove command and give an app"
        context.problem((*path, name), f"a command has no {name}: it is a program of its own", hint)
    if not group.command[0].strip():
        context.problem((*path, "command", 0), "the program is empty", "the first item is the program to run")


def _has_app(context: CheckContext, path: Path, group: Group) -> None:
    needed = group.command is None and group.app is None and context.manifest.spec.app is None
    if needed and not context.is_broken("spec", "app"):
        hint = "add `app: package.module:attribute` to spec or to the group, or give a command"
        context.problem(path, "the group has neither an app nor a command", hint)


def _pool(context: CheckContext, path: Path, group: Group) -> None:
    pool, task = group.pool or Pool.empty(), group.task or Task.empty()
    if pool.class_ is not None and pool.type not in (None, "custom"):
        hint = "write `type: custom`, or remove class"
        context.problem((*path, "pool", "class"), f"class is for a custom pool, and this is {pool.type}", hint)
    if pool.type is not None:
        for below, message, hint in pool_refusals(pool, task, pool.type):
            context.problem((*path, *below), message, hint)


def _limits(context: CheckContext, path: Path, group: Group) -> None:
    task = group.task or Task.empty()
    if task.soft_time_limit is not None and task.time_limit is not None and task.soft_time_limit >= task.time_limit:
        message = f"softTimeLimit {duration(task.soft_time_limit)} is not below timeLimit {duration(task.time_limit)}"
        context.problem(
            (*path, "task", "softTimeLimit"), message, "the task needs some time to react to the soft limit"
        )
    broker = context.manifest.spec.broker
    if not isinstance(broker, Broker) or broker.visibility_timeout is None or task.time_limit is None:
        return
    drain = group.drain.timeout if group.drain else None
    drain = DRAIN_TIMEOUT_SECONDS if drain is None else drain
    if task.acks != "early" and task.time_limit + drain > broker.visibility_timeout:
        total, redelivery = duration(task.time_limit + drain), duration(broker.visibility_timeout)
        message = (
            f"timeLimit {duration(task.time_limit)} and drain {duration(drain)} are {total}, longer "
            f"than the {redelivery} after which the broker delivers a task again"
        )
        hint = "raise spec.broker.visibilityTimeout, or lower timeLimit or drain.timeout"
        context.problem((*path, "task", "timeLimit"), message, hint)


def _environment(context: CheckContext, path: Path, group: Group) -> None:
    for field, variables in (("env", group.env), ("secretEnv", group.secret_env)):
        for name in sorted(variables or {}):
            if name in WORKER_SETTINGS and field == "env":
                pattern, what = WORKER_SETTINGS[name]
                if re.fullmatch(pattern, (group.env or {})[name]) is None:
                    context.problem_once((*path, field, name), f"{name} is {what}", "correct the value")
            elif name.startswith(RESERVED_ENV_PREFIX):
                hint = "choose another name; fleet sets these for its workers"
                message = f"names beginning with {RESERVED_ENV_PREFIX} are reserved"
                context.problem_once((*path, field, name), message, hint)
    for name in sorted(set(group.env or {}) & set(group.secret_env or {})):
        message = f"{name} is in env and in secretEnv"
        context.problem((*path, "secretEnv", name), message, "keep one of them")
    for name, secret in sorted((group.secret_env or {}).items()):
        context.declared((*path, "secretEnv", name), secret)
    for name, value in sorted((group.env or {}).items()):
        if holds_secret(name, value):
            hint = f"declare it under spec.secrets and write `secretEnv: {{{name}: …}}`"
            context.warn((*path, "env", name), f"{name} looks like a secret, and env is kept with every revision", hint)
        if len(name.encode()) + len(value.encode()) + 2 > LONGEST_VARIABLE_BYTES:
            message = f"{name} is longer than the {LONGEST_VARIABLE_BYTES:,} bytes a variable may have"
            context.problem_once((*path, "env", name), message, "put it in a file and give its path")


def _env_from(context: CheckContext, path: Path, group: Group) -> None:
    for index, source in enumerate(group.env_from or []):
        where: Path = (*path, "envFrom", index)
        if (source.file is None) == (source.inherit is None):
            message = "file and inherit exclude each other" if source.file else "neither file nor inherit is given"
            context.problem_once(where, message, "write `- {file: .env}` or `- {inherit: [PORT]}`, one each")
        for name in source.inherit or []:
            if name.startswith(RESERVED_ENV_PREFIX):
                message = f"names beginning with {RESERVED_ENV_PREFIX} are reserved"
                context.problem_once((*where, "inherit"), message, "leave it out; fleet sets these for its workers")


def _shell_references(context: CheckContext, path: Path, group: Group) -> None:
    """``$X`` in a value stays as it is: nothing but a shell replaces it."""
    for name, value in sorted((group.env or {}).items()):
        if match := re.search(_SHELL_REFERENCE, value):
            hint = f"write ${{env:{match[1] or match[2]}}} for the variable of the fleet command"
            message = f"{match[0]} stays as it is: no shell reads this value"
            context.warn((*path, "env", name), message, hint)


_SHELL_REFERENCE = r"\$(?:([A-Z_][A-Z0-9_]*)\b|\{([A-Za-z_][A-Za-z0-9_]*)(?::?[-+?][^}]*)?\})"


def _policies(context: CheckContext, path: Path, group: Group) -> None:
    rollout, backoff = group.rollout, group.restart.backoff if group.restart else None
    if rollout and rollout.strategy == "recreate":
        for name, value in (("maxSurge", rollout.max_surge), ("maxUnavailable", rollout.max_unavailable)):
            if value is not None:
                hint = "remove it, or write `strategy: rolling`"
                context.problem((*path, "rollout", name), f"{name} has no effect with strategy recreate", hint)
    elif rollout and rollout.max_surge == 0 and rollout.max_unavailable == 0:
        message = "nothing could be replaced: no replica may be extra and none may be missing"
        context.problem(
            (*path, "rollout", "maxSurge"), message, "write `maxUnavailable: 1`, or a maxSurge of at least 1"
        )
    initial, longest = (backoff.initial, backoff.max) if backoff else (None, None)
    if initial is not None and longest is not None and initial > longest:
        message = f"initial {duration(initial)} is more than max {duration(longest)}"
        context.problem((*path, "restart", "backoff", "initial"), message, "lower initial or raise max")


def _judged(context: CheckContext, path: Path, group: Group) -> None:
    """Canary and blue-green: what excludes what, shares that grow, and time enough."""
    rollout = group.rollout
    if rollout is None:
        return
    where = (*path, "rollout")
    if rollout.blue_green:
        for name, given in (("canary", rollout.canary is not None), ("strategy", rollout.strategy == "recreate")):
            if given:
                message = f"blueGreen and {name if name == 'canary' else 'strategy: recreate'} exclude each other"
                context.problem((*where, name), message, "keep one of them; an overlay removes the other with null")
    if rollout.canary is not None:
        _canary(context, (*where, "canary"), rollout.canary, recreate=rollout.strategy == "recreate")
    seconds = _compared_seconds(rollout)
    if rollout.deadline is not None and seconds >= rollout.deadline:
        message = (
            f"new and old ones are compared for {duration(seconds)}, and the deadline is {duration(rollout.deadline)}"
        )
        context.problem((*where, "deadline"), message, "raise deadline, or compare for less time")


def _canary(context: CheckContext, path: Path, canary: Canary, *, recreate: bool) -> None:
    if recreate:
        message = "with strategy recreate no old replica is left to compare with"
        context.problem(path, message, "write `strategy: rolling`, or remove the canary")
    shares: list[tuple[Canary | CanaryStep, Path]] = [(canary, path)]
    shares += [(step, (*path, "steps", index)) for index, step in enumerate(canary.steps or ())]
    for one, where in shares:
        if one.replicas is not None and one.percent is not None:
            context.problem((*where, "percent"), "replicas and percent exclude each other", "keep one of them")
    if not canary.steps:
        return
    if canary.replicas is not None or canary.percent is not None:
        name = "replicas" if canary.replicas is not None else "percent"
        context.problem((*path, name), f"{name} and steps exclude each other", "each step has its own share")
    for index, (before, after) in enumerate(pairwise(canary.steps), 1):
        for name in ("replicas", "percent"):
            low, high = getattr(before, name), getattr(after, name)
            if low is not None and high is not None and high <= low:
                message = f"{name} {high} is not more than the {low} of the step before"
                context.problem((*path, "steps", index, name), message, "shares grow from step to step")
    for index, step in enumerate(canary.steps):
        if step.replicas is None and step.percent is None:
            context.problem((*path, "steps", index), "the step has no share", "write `percent: 25`, or `replicas: 2`")


def _compared_seconds(rollout: Rollout) -> float:
    """How long new and old replicas are compared, all comparisons together."""
    canary, default = rollout.canary, CanaryPolicy().seconds
    if canary is not None:
        each = default if canary.for_ is None else canary.for_
        return sum(each if step.for_ is None else step.for_ for step in canary.steps) if canary.steps else each
    if not rollout.blue_green:
        return 0.0
    limit = rollout.blue_green.for_ if isinstance(rollout.blue_green, BlueGreen) else None
    return default if limit is None else limit


def _job(context: CheckContext, path: Path, group: Group) -> None:
    policy = group.restart.policy if group.restart else None
    if group.command is None:
        if policy is not None:
            hint = "remove it; a worker that ends is started again"
            context.problem((*path, "restart", "policy"), "policy is for a command, and the group has none", hint)
        if group.job:
            context.problem((*path, "job"), "a job is a command, and the group has none", "write what it runs: command")
    if not group.job or group.command is None:
        return
    if group.replicas is None or group.replicas > 1:
        field = next((name for name in ("autoscale", "share", "replicas") if getattr(group, name) is not None), "job")
        context.problem((*path, field), "a job runs once", "remove this field; a job needs none")
    if policy == "always":
        hint = "write onFailure, to try again what fails, or never"
        context.problem((*path, "restart", "policy"), "a job that ends well is not started again", hint)


def _conditions(context: CheckContext, path: Path, group: Group) -> None:
    for name, requirement in (group.depends_on or {}).items():
        other = context.manifest.spec.groups.get(name)
        if requirement.condition == "completed" and other is not None and not other.job:
            hint = f"write `job: true` in {name}, or leave the condition out: [{name}]"
            message = f"{name} is no job, so it never completes"
            context.problem((*path, "dependsOn", name, "condition"), message, hint)


def _addresses(context: CheckContext, path: Path, group: Group) -> None:
    """A name or a path that several replicas would have."""
    several = group.replicas is None or group.replicas > 1
    for field, text in (("name", group.name), ("logFile", group.log_file)):
        if text is not None and several and not re.search(r"\{(index|replica)\}", text):
            context.problem((*path, field), f"all replicas would have the {field} {shown(text)}", "put {index} into it")
    if group.name is not None and "/" in group.name:
        context.problem((*path, "name"), "a worker's name has no /", "write it like celery@{group}-{index}")
    if group.log_file is not None and group.log_file.endswith("/"):
        context.problem((*path, "logFile"), f"{shown(group.log_file)} is a folder", "write the path of a file")


# Each check with the fields it draws conclusions from; it is skipped when one of them is broken.
GROUP_CHECKS: tuple[tuple[Callable[[CheckContext, Path, Group], None], tuple[str, ...]], ...] = (
    (_scaling, ("replicas", "share", "autoscale")),
    (_part, ("share", "autoscale", "command", "capacity")),
    (_idle, ("autoscale",)),
    (_command_alone, ("command",)),
    (_has_app, ("app", "command")),
    (_pool, ("pool",)),
    (celery, ("worker", "pool", "task", "queues")),
    (_limits, ("task", "drain")),
    (_environment, ()),
    (_env_from, ()),
    (_shell_references, ()),
    (_job, ("job", "command", "replicas", "restart")),
    (_conditions, ("dependsOn",)),
    (_addresses, ("replicas",)),
    (_policies, ("rollout", "restart")),
    (health, ("health", "job")),
    (wait_for, ("waitFor",)),
    (_judged, ("rollout",)),
)
