"""What is allowed of groups that autoscale and probably a mistake: nothing moves them, or their load is not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleet.core.manifest.checks.context import CheckContext
from fleet.core.manifest.models import Broker, Group, Pool
from fleet.core.text.format import listed
from pools.traits import TRAITS

_REPORTING = frozenset(
    {
        *("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp", "librabbitmq", "qpid", "sqla", "sqlalchemy"),
        *("filesystem", "pgmq", "mongodb", "sqs", "slmq", "azureservicebus", "azurestoragequeues", "consul", "etcd"),
        *("zookeeper", "pyro"),
    }
)
"""kombu's transports that report how long a queue is. The memory of a process and Kafka do not."""

_SHARE_INSTEAD = "write share instead of autoscale"


def autoscaling(context: CheckContext) -> None:
    """Warn of groups that stay at their static share although the manifest says that they move."""
    if context.broken:
        return
    groups = {name: group for name, group in context.groups() if group.autoscale is not None}
    if groups and context.manifest.spec.balance.mode != "dynamic":
        _nothing_moves(context, sorted(groups))
    elif groups:
        seen = {name: group for name, group in groups.items() if _is_seen(context, name, group)}
        _broker_reports(context, sorted(seen))
        _shared_queues(context, seen)
        _whole_replicas(context, seen)


def _nothing_moves(context: CheckContext, names: Iterable[str]) -> None:
    message = f"nothing moves: {listed(names)} should autoscale, and the mode is {context.manifest.spec.balance.mode}"
    context.warn(("spec", "balance", "mode"), message, f"remove mode, or {_SHARE_INSTEAD}")


def _is_seen(context: CheckContext, name: str, group: Group) -> bool:
    """Whether its workers keep count of their tasks, and there are queues to look at."""
    path = ("spec", "groups", name, "autoscale")
    if group.command is not None:
        message = "the controller cannot see how busy a command is: the group stays at its static share"
        context.warn(path, message, f"use a worker, or {_SHARE_INSTEAD}")
    elif not group.queues:
        message = "the controller looks at queues, and the group names none: it stays at its static share"
        context.warn(path, message, "name the queues that it takes tasks from, the app's default queue too")
    return group.command is None and bool(group.queues)


def _broker_reports(context: CheckContext, names: list[str]) -> None:
    broker = context.manifest.spec.broker
    if not names or not isinstance(broker, Broker) or not isinstance(broker.url, str):
        return  # the embedded one reports them; a secret may be of any kind
    if broker.url.partition("://")[0].partition("+")[0].lower() not in _REPORTING:
        message = f"this kind of broker does not report queue lengths: {listed(names)} would stay at static shares"
        context.warn(("spec", "broker", "url"), message, f"use Redis or RabbitMQ, or {_SHARE_INSTEAD}")


def _shared_queues(context: CheckContext, moving: Mapping[str, Group]) -> None:
    takers: dict[str, list[str]] = {}
    for name, group in context.groups():
        for queue in group.queues or {}:
            takers.setdefault(queue, []).append(name)
    for queue, names in sorted(takers.items()):
        last = next((name for name in reversed(names) if name in moving), None)
        if last is not None and len(names) > 1:
            others = listed(name for name in names if name != last)
            message = f"{others} and {last} take from queue {queue!r}: each counts an equal part of what waits in it"
            hint = "with one group per queue the controller sees which is late"
            context.warn(("spec", "groups", last, "queues", queue), message, hint)


def _whole_replicas(context: CheckContext, moving: Mapping[str, Group]) -> None:
    """A pool that cannot change its slots would have to be replaced for them, which only an apply does."""
    for name, group in moving.items():
        pool, unit = group.pool or Pool.empty(), group.autoscale.unit if group.autoscale else 1
        size = pool.concurrency or 1
        of_celery = group.worker == "celery"
        if pool.type is not None and (of_celery or not TRAITS[pool.type].resize) and unit % size:
            whose = f"a {pool.type} pool of celery's worker" if of_celery else f"a {pool.type} pool"
            message = f"{whose} cannot change its {size} slots while it runs: whole replicas move"
            hint = f"write `unit: {size}` to say so, or a lower pool.concurrency for finer steps"
            context.warn(("spec", "groups", name, "autoscale", "unit"), message, hint)
