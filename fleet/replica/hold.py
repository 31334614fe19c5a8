"""Tells the worker in this pod to take no tasks, or to take them again: ``python -m fleet.replica.hold on|off``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fleet.replica.notice import look_now
from fleet.replica.record import set_hold

RECORD_VARIABLE = "FLEET_RECORD"


def main(arguments: list[str]) -> int:
    """Set the byte in the record that the worker looks at between two fetches; prints ``done``, or why not."""
    path = os.environ.get(RECORD_VARIABLE)
    if arguments not in (["on"], ["off"]) or not path:
        print(f"usage: python -m fleet.replica.hold on|off, with {RECORD_VARIABLE} set", file=sys.stderr)
        return 64
    if not set_hold(Path(path), on=arguments == ["on"]):
        print(f"{path}: no record of a worker")
        return 1
    look_now(Path(path))
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
