"""What spans several fields of a manifest: capabilities, budgets, references, deadlines.

Each check is one function in a table and notes problems; none stops another. A check that would look at a field whose
shape is wrong is left out, so that one mistake is not reported twice in other words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from fleet.core.manifest.checks.autoscale import autoscaling
from fleet.core.manifest.checks.context import CheckContext
from fleet.core.manifest.checks.groups import GROUP_CHECKS
from fleet.core.manifest.checks.kubernetes import kubernetes
from fleet.core.manifest.checks.notify import notify
from fleet.core.manifest.checks.pools import pool_refusals
from fleet.core.manifest.models import Broker, Group, Manifest, Pool, SecretRef
from fleet.core.manifest.tree import Findings, Node, Path
from fleet.core.text.format import shown
from fleet.core.text.mask import masked
from fleet.core.text.suggest import did_you_mean
from pools.traits import TRAITS

__all__ = ["check", "cycles", "pool_refusals"]

RESERVED_GROUP_PREFIX = "fleet-"


def check(manifest: Manifest, tree: Node, findings: Findings, broken: set[Path]) -> None:
    """Run every check. ``manifest`` may lack what is ``broken``."""
    touched = frozenset(path[:length] for path in broken for length in range(1, len(path) + 1))
    context = CheckContext(manifest, tree, findings, broken, touched)
    for look in _FLEET_CHECKS:
        look(context)
    for name, group in context.groups():
        for look_at, fields in GROUP_CHECKS:
            if not any(context.is_broken("spec", "groups", name, field) for field in fields):
                look_at(context, ("spec", "groups", name), group)


def _has_groups(context: CheckContext) -> None:
    if not context.names("spec", "groups") and not context.is_broken("spec", "groups"):
        hint = "add one; to take a running fleet down use `fleet down`"
        context.problem(("spec", "groups"), "there are no groups", hint)


def _group_names(context: CheckContext) -> None:
    for name in context.names("spec", "groups"):
        if name.startswith(RESERVED_GROUP_PREFIX):
            hint = "choose another name; these are for fleet's own programs"
            context.problem(
                ("spec", "groups", name), f"names beginning with {RESERVED_GROUP_PREFIX!r} are reserved", hint
            )


def _secret_sources(context: CheckContext) -> None:
    for name, secret in sorted(context.manifest.spec.secrets.items()):
        given = [source for source in ("file", "env", "exec") if getattr(secret, source) is not None]
        path = ("spec", "secrets", name)
        if not given and not context.is_broken(*path):
            context.problem(path, "the secret has no source", "give exactly one of file, env, exec")
        elif len(given) > 1:
            context.problem(path, f"the secret has {len(given)} sources: {', '.join(given)}", "keep exactly one")


def _release_source(context: CheckContext) -> None:
    release = context.manifest.spec.release
    if release.source is None:
        return
    for name in ("workdir", "python"):
        if getattr(release, name) is not None:
            hint = f"remove {name}, or remove source"
            context.problem(("spec", "release", name), f"{name} and source at once: source brings its own", hint)
    for name, path in (("path", release.source.path), ("requirements", release.source.requirements or "")):
        if path.startswith("/") or ".." in path.split("/"):
            hint = "write it from the top of the repository, such as app"
            context.problem(("spec", "release", "source", name), f"{shown(path)} leaves the repository", hint)


def _unused_secrets(context: CheckContext) -> None:
    if context.broken:
        return
    used = {secret for _, group in context.groups() for secret in (group.secret_env or {}).values()}
    if isinstance(context.manifest.spec.broker, Broker) and isinstance(context.manifest.spec.broker.url, SecretRef):
        used.add(context.manifest.spec.broker.url.secret)
    if (cluster := context.manifest.spec.kubernetes) is not None:
        used |= {secret for secret in (cluster.keda.password, cluster.keda.host) if secret}
    used |= {secret for one in context.manifest.spec.notify for _, secret in one.secrets()}
    for name in sorted(set(context.manifest.spec.secrets) - used):
        context.warn(("spec", "secrets", name), "nothing uses this secret", "remove it, or name it in secretEnv")


def _broker(context: CheckContext) -> None:
    broker = context.manifest.spec.broker
    if isinstance(broker, Broker):
        if isinstance(broker.url, SecretRef):
            context.declared(("spec", "broker", "url", "secret"), broker.url.secret)
        else:
            _broker_url(context, broker.url)


def _broker_url(context: CheckContext, url: str) -> None:
    path = ("spec", "broker", "url")
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
        hint = "write it like redis://host:6379/0 or amqp://host//; `broker: embedded` needs no URL"
        context.problem(path, "not the URL of a broker: it has no scheme", hint)
    elif re.match(r"(memory|filesystem)", url):
        context.warn(path, "tasks sent to this kind of broker do not reach workers reliably", "it is for tests only")
    if masked(url) != url and not re.match(r"[a-z+]+://[^:/@]*:(guest)?@", url):
        hint = "declare it under spec.secrets and write `url: {secret: name}`"
        context.warn(path, "the URL holds a password, which is then kept with every revision", hint)


def _broker_there(context: CheckContext) -> None:
    if context.manifest.spec.broker is not None or context.is_broken("spec", "broker"):
        return
    workers = [name for name, group in context.groups() if _needs_broker(context, name, group)]
    if workers:
        hint = "add `broker: embedded`, or `broker: {url: redis://host/0}`"
        context.problem(("spec", "broker"), f"a broker is required, for {_listed(workers)}", hint)


def _needs_broker(context: CheckContext, name: str, group: Group) -> bool:
    unsure = any(context.is_broken("spec", "groups", name, field) for field in ("command", "worker"))
    return group.command is None and group.worker != "celery" and not unsure


def _listed(names: list[str]) -> str:
    text = ", ".join(names[:4])
    return f"{text} and {len(names) - 4} more" if len(names) > 4 else text


def _dependencies(context: CheckContext) -> None:
    known = context.names("spec", "groups")
    graph: dict[str, list[str]] = {}
    for name, group in context.groups():
        path = ("spec", "groups", name, "dependsOn")
        graph[name] = []
        for other in sorted(group.depends_on or {}):
            if other == name:
                context.problem((*path, other), "the group depends on itself", "remove it")
            elif other not in known:
                context.problem((*path, other), f"there is no group {shown(other)}", did_you_mean(other, known))
            else:
                graph[name].append(other)
    for cycle in cycles(graph):
        hint = "nothing could start first; remove one of these"
        place = ("spec", "groups", cycle[0], "dependsOn", cycle[1])
        context.problem(place, f"groups wait for each other: {' -> '.join(cycle)}", hint)


def cycles(graph: Mapping[str, list[str]]) -> list[list[str]]:
    """Circles in a graph, closed (``a -> b -> a``), in the order of names; at least one of every knot."""
    found: list[list[str]] = []
    done: set[str] = set()
    for start in sorted(graph):
        if start not in done:
            found += _back_edges(graph, start, done)
    return found


def _back_edges(graph: Mapping[str, list[str]], start: str, done: set[str]) -> Iterator[list[str]]:
    trail = [start]
    todo = [iter(graph.get(start, ()))]
    while todo:
        following = next(todo[-1], None)
        if following is None:
            todo.pop()
            done.add(trail.pop())
        elif following in trail:
            yield [*trail[trail.index(following) :], following]
        elif following not in done:
            trail.append(following)
            todo.append(iter(graph.get(following, ())))


def _queues_at_rest(context: CheckContext) -> None:
    """Queues that nothing takes from, because all their groups are held at zero."""
    takers: dict[str, list[tuple[str, Group]]] = {}
    for name, group in context.groups():
        if context.is_broken("spec", "groups", name):
            return
        if not group.queues and group.command is None and not _is_at_rest(group):
            return  # it takes what its app says, which is not known here
        for queue in group.queues or {}:
            takers.setdefault(queue, []).append((name, group))
    for queue, groups in sorted(takers.items()):
        if all(_is_at_rest(group) for _, group in groups):
            names = [name for name, _ in groups]
            why = f"{_listed(names)} {'is' if len(names) == 1 else 'are'} held at zero replicas"
            message = f"nothing takes from queue {shown(queue)}: {why}"
            hint = "tasks that are sent to it wait; `fleet plan` says where some wait already"
            context.warn(("spec", "groups", names[0], "queues", queue), message, hint)


def _is_at_rest(group: Group) -> bool:
    return bool(group.paused) or group.replicas == 0


def _budget(context: CheckContext) -> None:
    total = context.manifest.spec.concurrency
    if total is None:
        return
    sound = [(name, group) for name, group in context.groups() if not context.is_broken("spec", "groups", name)]
    needs = {name: need for name, group in sound if (need := _floor(group))}
    slots = sum(count for count, _ in needs.values())
    if slots > total:
        largest = sorted(needs.items(), key=lambda item: (-item[1][0], item[0]))
        sums = _listed([f"{name} {text}" for name, (_, text) in largest])
        message = (
            f"the groups need at least {slots:,} slots and the budget is {total:,}: {slots - total:,} short ({sums})"
        )
        hint = f"raise spec.concurrency to {slots}, or lower replicas, pool.concurrency or min"
        context.problem(("spec", "concurrency"), message, hint)


def _two_sets(context: CheckContext) -> None:
    """A whole second set of slots, beside the others, in a budget that has no room for it."""
    total = context.manifest.spec.concurrency
    sound = [(name, group) for name, group in context.groups() if not context.is_broken("spec", "groups", name)]
    needs = {name: need[0] for name, group in sound if (need := _floor(group))}
    used = sum(needs.values())
    for name, group in sound if total is not None and used <= total else ():
        rollout = group.rollout
        if rollout is None or not rollout.blue_green or rollout.peak != "budget":
            continue
        more = needs.get(name, 0)
        if total is not None and used + more > total:
            message = f"blueGreen needs {more} slots for a second set, and {total - used} of {total} are free"
            hint = f"raise spec.concurrency to {used + more}, write `peak: surge`, or use a canary"
            context.problem(("spec", "groups", name, "rollout", "blueGreen"), message, hint)


def _floor(group: Group) -> tuple[int, str] | None:
    """The fewest slots a group has, and how that is worked out; None when it is not known before planning."""
    if group.paused:
        return None
    part = group.share or group.autoscale
    if part is not None:
        slots = -(-part.min // part.unit) * part.unit
        return (slots, f"min {slots}") if slots else None
    size = _slots_per_replica(group)
    if group.replicas is None or not size:
        return None
    return group.replicas * size, f"{group.replicas} x {size} = {group.replicas * size}"


def _slots_per_replica(group: Group) -> int | None:
    if group.command is not None:
        return group.capacity.slots if group.capacity else 0
    pool = group.pool or Pool.empty()
    fixed = TRAITS[pool.type].fixed_slots if pool.type else None
    return fixed or pool.concurrency


_FLEET_CHECKS: tuple[Callable[[CheckContext], None], ...] = (
    _has_groups,
    _group_names,
    _secret_sources,
    _release_source,
    _unused_secrets,
    _broker,
    _broker_there,
    _dependencies,
    _queues_at_rest,
    _budget,
    _two_sets,
    autoscaling,
    kubernetes,
    notify,
)
