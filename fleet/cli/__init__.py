"""The command line. ``main`` holds the only ``except`` that prints; everything is imported when its verb runs."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from types import FrameType
from typing import NoReturn

from fleet.core.text.format import printable
from fleet.errors import FleetError, Interrupted, ManifestError

BROKEN_PIPE = 128 + signal.SIGPIPE
RESUME = "interrupted: run the same command again to resume"
_OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Modules and manifests are many objects that stay: looking through them as often as Python does by default takes a
tenth of a command's time and finds nothing."""


def console() -> NoReturn:
    """The ``fleet`` command."""
    signal.signal(signal.SIGTERM, _terminated)
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        gc.freeze()  # Python looks through all that is left before it ends, which frees nothing but memory


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code. An unexpected exception keeps its traceback."""
    try:
        from fleet.cli.output import Output

        Output.has_printed = False
        code = _run(argv)
        sys.stdout.flush()
        return code
    except ManifestError as error:
        _document(argv, error)
        _tell(_problems(error))
        return error.exit_code
    except Interrupted as error:
        _document(argv, error)
        if error.hint:  # a change was under way
            _tell(f"fleet: {error.message}\n{RESUME}")
        return error.exit_code
    except FleetError as error:
        _document(argv, error)
        _tell(f"fleet: {error.message}" + (f"\n  hint: {error.hint}" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        _tell("")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _silence(sys.stdout)
        return BROKEN_PIPE


def _run(argv: Sequence[str]) -> int:
    from fleet.cli.parser import parse

    call = parse(argv)
    return call.run()


def _document(argv: Sequence[str], error: FleetError) -> None:
    """With ``-o json`` a failure is one document on stdout too, unless the verb has printed its own before."""
    if not _asks_for_json(argv):
        return
    from fleet.cli.output import Output, error_document

    if not Output.has_printed:
        try:
            Output(is_json=True).document(error_document(error))
        except BrokenPipeError:
            _silence(sys.stdout)


def _asks_for_json(argv: Sequence[str]) -> bool:
    """By the words alone: the failure may be that they cannot be parsed."""
    pairs = pairwise(argv)
    return ("-ojson" in argv or "--output=json" in argv) or any(
        flag in ("-o", "--output") and value == "json" for flag, value in pairs
    )


def _problems(error: ManifestError) -> str:
    count = len(error.problems)
    lines = [str(problem) for problem in error.problems]
    return "\n".join([*lines, "", f"{count} problem{'s' if count != 1 else ''}; nothing was touched"])


def _tell(text: str) -> None:
    """Errors go to stderr; when that is closed too, only the exit code is left."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except BrokenPipeError:
        _silence(sys.stderr)


def _silence(stream: object) -> None:
    """The reader has closed the pipe: stdout becomes /dev/null, so that the interpreter's last flush does not fail."""
    fileno = getattr(stream, "fileno", None)
    if fileno is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), fileno())


def _terminated(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum=signum)
