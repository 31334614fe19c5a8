"""schema: the JSON Schema of a manifest, for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.cli.output import Output
from fleet.state.files import write_whole

if TYPE_CHECKING:
    pass


def schema_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE", help="write it there instead of printing it")


def schema(args: argparse.Namespace, out: Output) -> int:
    """The JSON Schema that editors complete from."""
    from fleet.core.manifest import parse

    text = json.dumps(parse.schema(), indent=2, ensure_ascii=False) + "\n"
    if args.out:
        write_whole(Path(args.out).absolute(), text, mode=0o644)
    else:
        out.facts(text)
    return 0
