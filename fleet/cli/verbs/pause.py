"""pause: hold groups at zero replicas."""

from __future__ import annotations

import argparse

from fleet.cli.output import Output
from fleet.cli.override_flow import make_overrides, named, override_flags
from fleet.cli.target import duration


def pause_flags(parser: argparse.ArgumentParser) -> None:
    override_flags(parser, names="groups to hold at zero replicas")
    parser.add_argument(
        "--for", dest="lasting", type=duration, metavar="TIME", help="how long (default: until `fleet resume`)"
    )


def pause(args: argparse.Namespace, out: Output) -> int:
    """Hold groups at zero replicas."""
    fleet, names = named(args)
    return make_overrides(fleet, names, "paused", args, out)
