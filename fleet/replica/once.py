"""Runs a program that is not started again whenever it ends, and notes how it ended.

``python -m fleet.replica.once never|onFailure RECORD DIGEST KEPT…`` stays in front of the program, as
:mod:`fleet.replica.shell` does, whose arguments KEPT are. What ends for good exits with the one code that supervisord
does not answer with a restart, and its record says whether it ended well. Stdlib only.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from pathlib import Path

from fleet.core.spec import PARKED_EXIT
from fleet.core.text.format import duration
from fleet.replica import shell
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.record import Record

_ENDED = 1
"""The exit code instead of PARKED_EXIT, where a program that is to be started again ends with that one."""


def kept_argv(document: LaunchDocument, kept: tuple[str, ...]) -> tuple[str, ...]:
    """What to exec instead of the program. ``kept``: what :func:`fleet.replica.shell.kept_argv` gives for it."""
    policy = document.spec.restart.policy
    arguments = kept[kept.index(shell.__name__) + 1 :]
    return (sys.executable, "-P", "-m", __name__, policy, str(document.record), document.digest, *arguments)


def main(argv: list[str]) -> int:
    """Run the program to its end. Returns the exit code for supervisord."""
    policy, record, digest, arguments = argv[0], Path(argv[1]), argv[2], argv[3:]
    began = time.monotonic()
    code, asked = shell.run(arguments)
    if asked:
        return code
    if code != 0 and policy == "onFailure":
        return _ENDED if code == PARKED_EXIT else code
    lasted = duration(round(time.monotonic() - began))
    with closing(Record(record, digest=digest, slots=0, foreign=True)) as kept:
        kept.become("failed" if code else "stopped", f"exit code {code} after {lasted}")
    os.write(2, f"fleet: ended with exit code {code} after {lasted}\n".encode())
    return PARKED_EXIT


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
