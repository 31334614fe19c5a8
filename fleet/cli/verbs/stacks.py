"""stacks: ask workers for their stacks, and print what they write to their logs."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from fleet.cli.output import Output, painted
from fleet.cli.target import duration, output_flag
from fleet.cli.verbs.health import record_flags, records_of
from fleet.errors import FleetError, Refused
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView, read

WAIT_SECONDS = 5.0
_QUIET_SECONDS = 0.5
_LOOK_SECONDS = 0.05


def stacks_flags(parser: argparse.ArgumentParser) -> None:
    record_flags(parser)
    parser.add_argument(
        "--wait",
        type=duration,
        default=WAIT_SECONDS,
        metavar="TIME",
        help=f"longest wait for answers (default {WAIT_SECONDS:g}s)",
    )
    output_flag(parser)


def stacks(args: argparse.Namespace, out: Output) -> int:
    """Signal them all, then wait until their logs grow no more. Exit 1 when one of them wrote nothing."""
    paths = records_of(args)
    workers = _workers(paths, picky=bool(args.words or args.record))
    if not workers:
        raise FleetError("none of fleet's own workers runs", hint="`fleet health` shows what runs")
    texts = _written(paths, workers, wait_seconds=args.wait)
    out.either([{"replica": name, "stacks": text} for name, text in texts.items()], "\n".join(_shown(texts, out)))
    return 0 if all(texts.values()) else 1


def stacks_of(paths: Mapping[str, Path], *, wait_seconds: float) -> dict[str, str]:
    """Replica -> what it wrote when it was asked. paths: of their records.

    Raises FleetError, also where one of them is no worker of fleet's own that runs.
    """
    return _written(paths, _workers(paths, picky=True), wait_seconds=wait_seconds)


def _written(paths: Mapping[str, Path], workers: Mapping[str, RecordView], *, wait_seconds: float) -> dict[str, str]:
    logs = {name: _log_of(paths[name]) for name in workers}
    before = {name: _size(log) for name, log in logs.items()}
    for name, worker in workers.items():
        _ask(name, worker.pid)
    _await_quiet(logs, before, wait_seconds=wait_seconds)
    return {name: _added(log, before[name]) for name, log in logs.items()}


def _workers(paths: Mapping[str, Path], *, picky: bool) -> dict[str, RecordView]:
    """Only fleet's own workers are signalled: USR1 may end other programs. ``picky``: raise when a named one is not."""
    found = {}
    for name, path in sorted(paths.items()):
        record = read(path)
        if record is None or not lives(record.pid, record.started_ticks) or not _is_of(path, record.pid):
            if picky:
                raise FleetError(f"{name} does not run", hint="`fleet health` and `fleet logs` may say why")
        elif not record.foreign:
            found[name] = record
        elif picky:
            raise Refused(
                f"{name} is not one of fleet's own workers", hint="USR1 means something else to it, or ends it"
            )
    return found


def _is_of(path: Path, pid: int) -> bool:
    """Whether the process belongs to whoever can write the record: root must not be sent to signal somebody else's."""
    try:
        return os.geteuid() != 0 or Path(f"/proc/{pid}").stat().st_uid == path.parent.stat().st_uid
    except OSError:
        return False


def _ask(name: str, pid: int) -> None:
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError as error:
        raise FleetError(f"{name} (pid {pid}) cannot be asked: {error.strerror}") from error


def _log_of(record: Path) -> Path:
    """``<fleet>/run/records/x.rec`` and ``<fleet>/accounts/UID/records/x.rec`` -> ``<fleet>/log/x.log``."""
    folders = record.absolute().parents
    above = 3 if len(folders) > 3 and folders[2].name == "accounts" else 2
    if len(folders) <= above or folders[0].name != "records":
        raise FleetError(
            f"{record} is not in a fleet's folder, so its log is not known",
            hint="nothing was sent; `kill -USR1 PID` writes the stacks wherever that worker logs",
        )
    return folders[above] / "log" / f"{record.stem}.log"


def _await_quiet(logs: Mapping[str, Path], before: Mapping[str, int], *, wait_seconds: float) -> None:
    """Wait until each log has grown and none grows any more."""
    end = time.monotonic() + wait_seconds
    sizes, since = dict(before), time.monotonic()
    while time.monotonic() < end:
        now = {name: _size(log) for name, log in logs.items()}
        if now != sizes:
            sizes, since = now, time.monotonic()
        elif time.monotonic() - since >= _QUIET_SECONDS and all(now[name] > before[name] for name in now):
            return
        time.sleep(_LOOK_SECONDS)


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0


def _added(log: Path, offset: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _shown(texts: Mapping[str, str], out: Output) -> Iterator[str]:
    for name, text in texts.items():
        yield painted(f"== {name}", "bold", colour=out.colour)
        yield text.rstrip("\n") or "(nothing in its log: is it stopped, or does it log elsewhere?)"
