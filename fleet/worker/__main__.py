"""``python -m fleet.worker <launch document>``: one worker of a fleet, as its launcher starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from fleet.errors import FleetError
from fleet.worker.options import read_document


def main(arguments: list[str]) -> int:
    """Read the launch document and run."""
    if len(arguments) != 1:
        print("usage: python -m fleet.worker <launch document>", file=sys.stderr)
        return 64
    try:
        options = read_document(Path(arguments[0]))
    except FleetError as error:
        print(f"{error.message}\n  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    from fleet.worker.process import run

    return run(options)


if __name__ == "__main__":
    from fleet.worker.process import leave

    leave(main(sys.argv[1:]))
