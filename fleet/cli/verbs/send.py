"""send: enqueue tasks."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fleet.broker.message import build
from fleet.broker.publisher import Outgoing, Publisher, depths
from fleet.cli.output import Output
from fleet.cli.target import duration, fleet_for, fleet_of, manifest_of, output_flag, target_flags, target_of
from fleet.core.desired import Desired, broker_of
from fleet.core.spec import TracingSpec
from fleet.errors import NotReady, UsageError
from fleet.operate.local_fleet import LocalFleet
from fleet.tracing.exporting import own_spans
from fleet.tracing.sending import Mark, sending

WAIT_TIMEOUT_SECONDS = 3600.0
_POLL_SECONDS = 0.3
_QUIET_LOOKS = 3


def send_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser, names="TASK: its name, like shop.thumb", required=True)
    parser.add_argument("--queue", metavar="NAME", help="the queue (default: the only queue of the fleet)")
    parser.add_argument("--args", default="[]", metavar="JSON", help="positional arguments, a JSON list")
    parser.add_argument("--kwargs", default="{}", metavar="JSON", help="keyword arguments, a JSON object")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many times to send it (default 1)")
    parser.add_argument("--wait", action="store_true", help="wait until the fleet has done that many")
    parser.add_argument(
        "--timeout", type=duration, default=WAIT_TIMEOUT_SECONDS, metavar="TIME", help="longest time to --wait"
    )
    output_flag(parser)


def send(args: argparse.Namespace, out: Output) -> int:
    """Enqueue; with --wait, wait until they are done."""
    target = target_of(args)
    if len(target.names) != 1:
        raise UsageError("name one task", hint="like `fleet send fleet.yaml shop.thumb --args '[\"a.jpg\"]'`")
    if args.count < 1:
        raise UsageError(f"--count {args.count}: nothing to send")
    loaded = manifest_of(target)
    fleet = fleet_of(target) if target.fleet else fleet_for(loaded)
    desired, secrets = fleet.desired_of(loaded)
    queue = args.queue or _only_queue(desired)
    url = _broker_url(desired, secrets)
    call = (target.names[0], _json(args.args, list, "--args"), _json(args.kwargs, dict, "--kwargs"))
    before = _counted(fleet, queue) if args.wait else (0, 0)
    began = time.monotonic()
    with (
        _bar(out, "sending", args.count) as progress,
        Publisher(url) as publisher,
        own_spans(_tracing(desired), fleet=desired.fleet),
        sending(call[0], queue, url=url) as mark,
    ):
        publisher.send_many((_message(queue, *call, mark=mark) for _ in range(args.count)), progress=progress)
    sent = time.monotonic() - began
    document: dict[str, Any] = {"task": target.names[0], "queue": queue, "sent": args.count, "seconds": round(sent, 3)}
    text = f"sent {args.count} x {target.names[0]} to {queue} in {sent:.1f} s"
    if args.wait:
        _wait(fleet, queue, url, before[0], args, out)
        failed = max(0, _counted(fleet, queue)[1] - before[1])
        waited = time.monotonic() - began
        document |= {"failed": failed, "waited": round(waited, 3)}
        text += f"; done after {waited:.1f} s, {failed} failed"
    out.either(document, text)
    return 1 if document.get("failed") else 0


def _tracing(desired: Desired) -> TracingSpec:
    """As the workers are traced."""
    groups = desired.groups.values()
    return next((group.spec.tracing for group in groups if group.spec.tracing.on), TracingSpec())


def _message(queue: str, name: str, arguments: list[Any], keywords: Mapping[str, Any], *, mark: Mark) -> Outgoing:
    built = build(name, arguments, keywords)
    mark(built.headers)
    return Outgoing(queue, built.body, built.headers, built.properties, built.content_type, built.content_encoding)


def _json(text: str, kind: type[Any], flag: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{flag} is not JSON: {error}", hint="""like --args '[1, "two"]' --kwargs '{"size": 3}'"""
        ) from error
    if not isinstance(value, kind):
        what = "list" if kind is list else "object"
        raise UsageError(f"{flag} must be a JSON {what}")
    return value


def _only_queue(desired: Desired) -> str:
    queues = sorted({queue.name for group in desired.groups.values() for queue in group.spec.queues})
    if len(queues) != 1:
        hint = f"one of: {', '.join(queues)}" if queues else "no group names a queue"
        raise UsageError("which queue? Say --queue NAME", hint=hint)
    return queues[0]


def _broker_url(desired: Desired, secrets: Mapping[str, str]) -> str:
    broker = broker_of(desired)
    if broker is None:
        raise UsageError("the manifest names no broker", hint="write spec.broker")
    return secrets[broker.secret] if broker.secret else broker.url


def _consumers(fleet: LocalFleet, queue: str) -> list[Any]:
    """Replicas that take from the queue."""
    replicas = fleet.backend.observe().replicas.values()
    return [one for one in replicas if one.spec and any(own.name == queue for own in one.spec.queues)]


def _counted(fleet: LocalFleet, queue: str) -> tuple[int, int]:
    """(done, failed): sums over the workers that run now, since their start."""
    replicas = _consumers(fleet, queue)
    return sum(replica.processed for replica in replicas), sum(replica.failed for replica in replicas)


def _wait(fleet: LocalFleet, queue: str, url: str, before: int, args: argparse.Namespace, out: Output) -> None:
    """Until as many were done, or nothing waits and nothing runs for a few looks (a worker was restarted meanwhile)."""
    end = time.monotonic() + args.timeout
    quiet = 0
    with _bar(out, "done", args.count) as progress:
        while True:
            replicas = _consumers(fleet, queue)
            done = max(0, sum(replica.processed for replica in replicas) - before)
            progress(min(done, args.count))
            idle = not depths(url, [queue])[queue] and not any(replica.busy for replica in replicas)
            quiet = quiet + 1 if idle else 0
            if done >= args.count or (quiet >= _QUIET_LOOKS and replicas):
                return
            if time.monotonic() > end:
                raise NotReady(f"{done} of {args.count} tasks were done within {args.timeout:g} s")
            time.sleep(_POLL_SECONDS)


@contextmanager
def _bar(out: Output, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, else nothing."""
    if not out.is_live:
        yield _unseen
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    done = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    columns = (*done, TextColumn("left"), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=Console(file=out.stderr)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def _unseen(_done: int) -> None:
    """Does nothing: there is no terminal."""
