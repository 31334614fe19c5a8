"""metrics: numbers of one fleet, or of all fleets of this host, for Prometheus."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fleet.cli.output import Output, clock
from fleet.cli.target import duration, fleet_of, no_names, target_flags, target_of
from fleet.core.text.listen import ListenAddress, listen_address
from fleet.errors import FleetError, UsageError

if TYPE_CHECKING:
    from fleet.operate.metrics.collecting import Collector


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
        "--every", type=duration, metavar="TIME", help="with --textfile: again and again (by default once)"
    )


def _address(text: str) -> ListenAddress:
    try:
        return listen_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def metrics(args: argparse.Namespace, out: Output) -> int:
    """Print them once; or serve them, or leave them in a file, until INT or TERM."""
    from fleet import settings
    from fleet.operate.metrics.collecting import Collector

    target = target_of(args)
    no_names(target)
    if args.every is not None and args.textfile is None:
        raise UsageError("--every needs --textfile", hint="--listen answers whenever it is asked")
    if args.listen is not None and args.textfile is not None:
        raise UsageError("--listen and --textfile at once", hint="run it twice, or scrape what listens")
    fleet = fleet_of(target) if target.manifests or target.fleet else None
    collector = Collector(settings.load(), fleet=fleet, watch_queues=args.listen is not None or args.every is not None)
    try:
        if args.listen is not None:
            _serve(collector, args.listen, out)
        elif args.textfile is not None:
            _write(collector, args.textfile, fleet.name if fleet is not None else "", every=args.every, out=out)
        else:
            _print(collector, out)
    finally:
        collector.close()
    return 0


def _print(collector: Collector, out: Output) -> None:
    from fleet.operate.metrics.exposition import text

    out.facts(text(collector.collect()).decode())


def _serve(collector: Collector, address: ListenAddress, out: Output) -> None:
    from fleet.operate.metrics.server import MetricsServer

    over = _until_told()
    with MetricsServer(address, collector.collect) as server:
        out.say(f"{clock()} metrics at {server.address}, path /metrics")
        over.wait()


def _write(collector: Collector, folder: Path, fleet: str, *, every: float | None, out: Output) -> None:
    from fleet.operate.metrics.textfile import textfile_of, write_textfile

    path = textfile_of(folder, fleet)
    if every is None:
        write_textfile(path, collector.collect())
        return
    over, problem = _until_told(), ""
    while not over.is_set():
        try:
            write_textfile(path, collector.collect())
            problem = ""
        except FleetError as error:  # a full disk: the next try may succeed
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
