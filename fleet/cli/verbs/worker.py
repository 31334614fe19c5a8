"""worker: one worker by hand, exactly as under supervisord, without a manifest."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from fleet.cli.output import Output
from fleet.cli.target import duration
from fleet.core.desired import replica_name
from fleet.core.spec import DRAIN_TIMEOUT_SECONDS, BrokerSpec, PoolSpec, QueueSpec, TaskPolicy, WorkerSpec, digest
from fleet.errors import UsageError
from fleet.inputs import machine
from fleet.replica.launch_document import LaunchDocument
from pools.traits import TRAITS

BROKER_VARIABLE = "FLEET_BROKER_URL"
_FLEET = "by-hand"
_SECRET = "broker"


def worker_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--app", "-A", required=True, metavar="MODULE:ATTR", help="a Celery app or a fleet.Tasks")
    parser.add_argument("--pool", "-P", default="solo", metavar="POOL", help=f"{', '.join(TRAITS)}, or module:Class")
    parser.add_argument("--concurrency", "-c", type=int, metavar="N", help="slots (default: the cores, solo: 1)")
    parser.add_argument("--queues", "-Q", default="", metavar="A,B", help="queues to take from (default: the app's)")
    parser.add_argument("--broker", "-b", metavar="URL", help=f"default: ${BROKER_VARIABLE}, else the app's own")
    parser.add_argument("--acks", choices=("early", "late"), help="default: as the app says")
    parser.add_argument("--time-limit", type=duration, metavar="TIME", help="hard limit of a task")
    drain_seconds = DRAIN_TIMEOUT_SECONDS
    parser.add_argument(
        "--drain-timeout", type=duration, default=drain_seconds, metavar="TIME", help=f"default: {drain_seconds:g}s"
    )
    parser.add_argument("--loglevel", "-l", default="INFO", type=str.upper, metavar="LEVEL", help="default: INFO")
    parser.add_argument("--workdir", metavar="DIR", help="default: this folder")


def worker(args: argparse.Namespace, out: Output) -> NoReturn:
    """Become the worker: the launch document is kept in memory, so that the broker's password is in no file."""
    broker = args.broker or os.environ.get(BROKER_VARIABLE, "")
    spec = spec_of(args)
    descriptor = os.memfd_create("fleet-worker", 0)
    document = LaunchDocument(
        path=Path(f"/proc/self/fd/{descriptor}"),
        fleet=_FLEET,
        replica=replica_name("worker", os.getpid()),  # several by hand on one broker must not share what they hold
        digest=digest(spec),
        spec=spec,
        secrets={_SECRET: broker},
    )
    os.write(descriptor, document.to_bytes())
    if args.workdir:
        try:
            os.chdir(args.workdir)
        except OSError as error:
            raise UsageError(f"--workdir {args.workdir}: {error.strerror}") from error
    queues = ", ".join(queue.name for queue in spec.queues) or "the app's default queue"
    what = f"{spec.pool.type} x {spec.pool.concurrency}, from {queues}"
    out.say(f"worker of {spec.app}: {what}; Ctrl-C drains")
    _become(document.path, {**os.environ, **({BROKER_VARIABLE: broker} if broker else {})})


def spec_of(args: argparse.Namespace) -> WorkerSpec:
    """What the flags say, as a spec."""
    kind, class_path = ("custom", args.pool) if ":" in args.pool else (args.pool, "")
    if kind not in TRAITS or (kind == "custom" and not class_path):
        raise UsageError(f"unknown pool {args.pool!r}", hint=f"known: {', '.join(TRAITS)}; a class is module:Class")
    if args.concurrency is not None and args.concurrency < 1:
        raise UsageError(f"--concurrency {args.concurrency}: at least 1")
    traits = TRAITS[kind]
    slots = traits.slots(args.concurrency, cpus=machine.cpus())
    return WorkerSpec(
        kind="worker",
        fleet=_FLEET,
        group="worker",
        pool=PoolSpec(kind, slots, class_path),
        app=args.app,
        queues=tuple(QueueSpec(name) for name in args.queues.split(",") if name),
        broker=BrokerSpec(secret=_SECRET),
        task=TaskPolicy(time_limit_seconds=args.time_limit, acks=args.acks),
        drain_timeout_seconds=args.drain_timeout,
        workdir=os.path.abspath(args.workdir or "."),
        python=sys.executable,
        log_level=args.loglevel,
    )


def _become(document: Path, environ: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    command = [sys.executable, "-P", "-m", "fleet.worker", str(document)]
    os.execve(sys.executable, command, environ)
