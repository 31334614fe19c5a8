"""run: a fleet in the foreground, from its apply to its drain."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

from fleet.cli.change_flow import ChangeFlags, run_change
from fleet.cli.output import Output, clock
from fleet.cli.target import duration, fleet_for, manifest_of, no_names, target_flags, target_of
from fleet.operate.foreground import init_process
from fleet.operate.foreground.run import Foreground, Signalled

if TYPE_CHECKING:
    from fleet.operate.local_fleet import LocalFleet, PlannedChange

FIRST_PROCESS = 1


def run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of run."""
    target_flags(parser)
    parser.add_argument("--prune", action="store_true", help="also remove groups that left the manifest")
    parser.add_argument("--timeout", type=duration, metavar="TIME", help="longest wait until an apply is ready")
    parser.add_argument(
        "--keep-going", action="store_true", help="try a first apply that fails again, and leave running what runs"
    )
    parser.add_argument("--exit-when-done", action="store_true", help="drain and end once no task is left")
    parser.add_argument("--logs", action="store_true", help="print the logs of all replicas too")
    parser.add_argument(
        "--init", action="store_true", help="reap orphans and pass signals on, as the first process of a container must"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Apply, keep up, drain. TERM and INT drain and end it, HUP applies the files again."""
    if args.init or os.getpid() == FIRST_PROCESS:
        code = init_process.begin()
        if code is not None:
            return code
    signalled, woken = Signalled(), threading.Event()
    _listen(signalled, woken)
    target = target_of(args)
    no_names(target)
    fleet = fleet_for(manifest_of(target))

    def look() -> PlannedChange:
        loaded = manifest_of(target)
        desired, secrets = fleet.desired_of(loaded)
        return fleet.planned(desired, secrets, manifest=loaded, prune=args.prune)

    def apply() -> None:
        flags = ChangeFlags(yes=True, timeout_seconds=args.timeout, reason="fleet run")
        run_change(fleet, out, verb="apply", look=look, flags=flags)

    def wait(seconds: float) -> None:
        woken.wait(seconds)
        woken.clear()

    if args.logs:
        threading.Thread(target=_print_logs, args=(fleet,), name="logs", daemon=True).start()
    Foreground(
        fleet,
        apply=apply,
        tell=lambda text: out.say(f"{clock()} {text}"),
        wait=wait,
        signalled=signalled,
        keep_going=args.keep_going,
        exit_when_done=args.exit_when_done,
    ).run()
    return 0


def _listen(signalled: Signalled, woken: threading.Event) -> None:
    def caught(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            signalled.reload = True
        else:
            signalled.again = bool(signalled.number)
            signalled.number = number
        woken.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, caught)


def _print_logs(fleet: LocalFleet) -> None:
    """Lines of every replica from now on, for ever. They go to stdout, in one write each."""
    from fleet.state import logs

    begin = logs.sizes(logs.files(fleet.places.log))
    for line in logs.follow(fleet.places.log, (), from_sizes=begin):
        sys.stdout.write(f"{line.replica} | {line.text}\n")
        sys.stdout.flush()
