"""``python -m fleet.worker <launch document>``: one worker of a fleet, as its launcher starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from fleet.worker.patching import patch_for


def main(arguments: list[str]) -> int:
    """Read the launch document and run. For a green pool the process is patched before anything else is imported."""
    if len(arguments) != 1:
        print("usage: python -m fleet.worker <launch document>", file=sys.stderr)
        return 64
    path = Path(arguments[0])
    missing = patch_for(path)
    from fleet.errors import FleetError
    from fleet.worker.options import read_document

    try:
        options = read_document(path)
    except FleetError as error:
        if missing is not None:
            return _refuse(str(missing), missing.hint, 1)
        return _refuse(error.message, error.hint, error.exit_code)
    from fleet.worker.process import run, say_cannot_start

    if missing is not None:
        if options.record_path is not None:
            say_cannot_start(options, str(missing))
        return _refuse(str(missing), missing.hint, 1)
    return run(options)


def _refuse(message: str, hint: str, exit_code: int) -> int:
    print(f"{message}\n  hint: {hint}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    from fleet.worker.process import leave

    leave(code)
