"""completion: a completion script for a shell."""

from __future__ import annotations

import argparse

from fleet.cli.output import Output

SHELLS = ("bash", "zsh", "tcsh", "fish")


def completion_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell to print a script for")


def completion(args: argparse.Namespace, out: Output) -> int:
    """A script to source, like ``fleet completion bash > /etc/bash_completion.d/fleet``."""
    import shtab

    from fleet.cli.parser import whole

    out.facts(shtab.complete(whole(), shell=args.shell))
    return 0
