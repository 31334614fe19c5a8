"""Tells the workers in this pod to take no tasks, or to take them again: ``python -m fleet.replica.hold on|off``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from fleet.replica.notice import look_now
from fleet.replica.pod_records import RECORD_VARIABLE, is_pod, records_of_pod
from fleet.replica.record import set_hold


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Set the byte in each record that the worker looks at between two fetches; prints ``done``, or why not."""
    if arguments not in (["on"], ["off"]) or not is_pod(environ):
        print(f"usage: python -m fleet.replica.hold on|off, with {RECORD_VARIABLE} set", file=sys.stderr)
        return 64
    paths = records_of_pod(environ)
    failed = [path for path in paths.values() if not set_hold(path, on=arguments == ["on"])]
    if failed or not paths:
        print(f"{failed[0] if failed else 'this pod'}: no record of a worker")
        return 1
    for path in paths.values():
        look_now(path)
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
