"""metrics: numbers of one fleet, or of all fleets of this host, for Prometheus and OpenTelemetry."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fleet.cli.output import Output, clock
from fleet.cli.target import duration, fleet_of, no_names, target_flags, target_of
from fleet.core.text.listen import ListenAddress, listen_address
from fleet.core.text.otlp_url import otlp_url
from fleet.errors import FleetError, UsageError

if TYPE_CHECKING:
    from fleet.operate.metrics.collecting import Collector
    from fleet.operate.metrics.samples import Sample

    Push = Callable[[Sequence[Sample]], object]


def metrics_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of metrics."""
    target_flags(parser)
    parser.add_argument(
        "--listen", type=_address, metavar="ADDRESS", help="serve them: 127.0.0.1:9808, [::1]:9808 or unix:/PATH"
    )
    parser.add_argument(
        "--textfile", type=Path, metavar="DIR", help="write them into a folder of node_exporter's textfile collector"
    )
    parser.add_argument(
        "--otlp", type=_url, metavar="URL", help="send them to an OpenTelemetry collector, like http://127.0.0.1:4318"
    )
    parser.add_argument(
        "--every", type=duration, metavar="TIME", help="with --textfile or --otlp: again and again (by default once)"
    )


def _address(text: str) -> ListenAddress:
    try:
        return listen_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _url(text: str) -> str:
    try:
        return otlp_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def metrics(args: argparse.Namespace, out: Output) -> int:
    """Print them once; or serve them, leave them in a file or send them, until INT or TERM."""
    from fleet import settings
    from fleet.operate.metrics.collecting import Collector

    target = target_of(args)
    no_names(target)
    _check(args)
    fleet = fleet_of(target) if target.manifests or target.fleet else None
    goes_on = args.listen is not None or args.every is not None
    push = _push(args, fleet.name if fleet is not None else "")
    collector = Collector(settings.load(), fleet=fleet, watch_queues=goes_on)
    try:
        if args.listen is not None:
            _serve(collector, args.listen, push, every=args.every, out=out)
        elif push is not None:
            _keep_pushing(collector, push, every=args.every, out=out)
        else:
            _print(collector, out)
    finally:
        collector.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    """Which ways out go together."""
    if args.every is not None and args.textfile is None and args.otlp is None:
        raise UsageError("--every needs --textfile or --otlp", hint="--listen answers whenever it is asked")
    if args.textfile is not None and (args.listen is not None or args.otlp is not None):
        other = "--listen" if args.listen is not None else "--otlp"
        raise UsageError(f"{other} and --textfile at once", hint="run it twice, or scrape what listens")
    if args.listen is not None and args.otlp is not None and args.every is None:
        raise UsageError("--listen and --otlp without --every", hint="say how often to send: --every 60s")


def _push(args: argparse.Namespace, fleet: str) -> Push | None:
    """Writes to the file, or sends to the collector; None where neither is asked for."""
    if args.textfile is not None:
        from fleet.operate.metrics.textfile import textfile_of, write_textfile

        return partial(write_textfile, textfile_of(args.textfile, fleet))
    if args.otlp is None:
        return None
    from fleet.tracing.exporting import MISSING, is_installed

    if not is_installed():
        raise UsageError(f"--otlp cannot work: {MISSING}", hint="pip install 'workerfleet[otel]'")
    from fleet.operate.metrics.otlp import MetricsSender

    return MetricsSender(args.otlp).send


def _print(collector: Collector, out: Output) -> None:
    from fleet.operate.metrics.exposition import text

    out.facts(text(collector.collect()).decode())


def _serve(
    collector: Collector, address: ListenAddress, push: Push | None, *, every: float | None, out: Output
) -> None:
    from fleet.operate.metrics.server import MetricsServer

    over = _until_told()
    with MetricsServer(address, collector.collect) as server:
        out.say(f"{clock()} metrics at {server.address}, path /metrics")
        if push is not None and every is not None:
            _push_until(over, collector, push, every=every, out=out)
        over.wait()


def _keep_pushing(collector: Collector, push: Push, *, every: float | None, out: Output) -> None:
    if every is None:
        push(collector.collect())
    else:
        _push_until(_until_told(), collector, push, every=every, out=out)


def _push_until(over: threading.Event, collector: Collector, push: Push, *, every: float, out: Output) -> None:
    problem = ""
    while not over.is_set():
        try:
            push(collector.collect())
            problem = ""
        except FleetError as error:  # a full disk, a collector that is away: the next try may succeed
            if error.message != problem:
                out.say(f"{clock()} error: {error.message}")
            problem = error.message
        over.wait(every)


def _until_told() -> threading.Event:
    """Set by INT and TERM."""
    over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return over
