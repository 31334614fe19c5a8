"""completion, version."""

from __future__ import annotations

import argparse
import platform

from fleet._version import __version__
from fleet.cli.output import Output
from fleet.cli.target import output_flag

SHELLS = ("bash", "zsh", "tcsh", "fish")


def completion_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of completion."""
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")


def completion(args: argparse.Namespace, out: Output) -> int:
    """A script to source, like ``fleet completion bash > /etc/bash_completion.d/fleet``."""
    import shtab

    from fleet.cli.parser import whole

    out.facts(shtab.complete(whole(), shell=args.shell))
    return 0


def version_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of version."""
    output_flag(parser)


def version(_args: argparse.Namespace, out: Output) -> int:
    """The version of fleet and of the Python it runs on."""
    python = platform.python_version()
    out.either({"fleet": __version__, "python": python}, f"fleet {__version__} (Python {python})")
    return 0
