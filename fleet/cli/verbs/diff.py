"""diff: where what runs differs from the manifest."""

from __future__ import annotations

import argparse

from fleet.cli.output import Output
from fleet.cli.target import fleet_for, manifest_of, no_names, output_flag, refuse_cluster, target_flags, target_of

DIFFERS = 2


def diff_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of diff."""
    target_flags(parser)
    parser.add_argument("--detailed-exitcode", action="store_true", help="exit 2 where something differs")
    output_flag(parser, "markdown")


def diff(args: argparse.Namespace, out: Output) -> int:
    """Compare what runs with the manifest; nothing is planned or changed."""
    from fleet.operate.sync import drift

    target = target_of(args)
    no_names(target)
    loaded = manifest_of(target)
    refuse_cluster(target.sources())
    local = fleet_for(loaded)
    found = drift.differences(local.desired_of(loaded)[0], local.backend.observe())
    if args.output == "markdown":
        out.facts(drift.markdown(loaded.name, found))
    else:
        document = {"fleet": loaded.name, "differences": [one.to_json() for one in found]}
        out.either(document, drift.text(loaded.name, found))
    return DIFFERS if args.detailed_exitcode and found else 0
