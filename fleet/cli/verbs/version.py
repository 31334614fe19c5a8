"""version: the version of fleet and of the Python it runs on."""

from __future__ import annotations

import argparse
import platform

from fleet._version import __version__
from fleet.cli.output import Output
from fleet.cli.target import output_flag


def version_flags(parser: argparse.ArgumentParser) -> None:
    output_flag(parser)


def version(_args: argparse.Namespace, out: Output) -> int:
    """The version of fleet and of the Python it runs on."""
    python = platform.python_version()
    out.either({"fleet": __version__, "python": python}, f"fleet {__version__} (Python {python})")
    return 0
