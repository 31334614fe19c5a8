"""From the command line to a call: only the parser of the named verb is built."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fleet.cli.verb_list import VERBS, Verb, overview
from fleet.core.text.suggest import closest
from fleet.errors import UsageError


@dataclass(frozen=True, slots=True)
class Call:
    """A verb with its arguments."""

    verb: Verb | None
    args: argparse.Namespace
    text: str = ""

    def run(self) -> int:
        """Run the verb and return its exit code."""
        if self.verb is None:
            print(self.text)
            return 0
        from fleet.cli.output import Output

        module = importlib.import_module(f"fleet.cli.verbs.{self.verb.name}")
        code: int = getattr(module, self.verb.name)(self.args, Output.of(self.args))
        return code


class Parser(argparse.ArgumentParser):
    """argparse with our exit code for mistakes, and a guess at what was meant."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see `{self.prog} --help`")

    def understood(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments. Raises UsageError with a guess for a flag that is not known."""
        args, unknown = self.parse_known_intermixed_args(list(words))
        if unknown:
            first = unknown[0]
            flags = [flag for action in self._actions for flag in action.option_strings]
            raise UsageError(f"{self.prog} does not know {first}", hint=_guess(first, flags, self.prog))
        return args


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """argparse makes one for each flag, to check it, and imports the compressors to learn how wide the terminal is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As ``shutil.get_terminal_size`` has it."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else -1).columns or 80
    except (OSError, ValueError):
        return 80


def parse(argv: Sequence[str]) -> Call:
    """The call that a command line means. Raises UsageError."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        wanted = argv[1] if len(argv) > 1 and argv[0] == "help" else ""
        if not wanted:
            return Call(None, argparse.Namespace(), overview())
        argv = [wanted, "--help"]
    if argv[0] in {"-V", "--version"}:
        argv = ["version", *argv[1:]]
    verb = _verb(argv[0])
    return Call(verb, parser_of(verb).understood(argv[1:]))


def _verb(word: str) -> Verb:
    if word in VERBS:
        return VERBS[word]
    what, known = ("flag", ("--help", "--version")) if word.startswith("-") else ("verb", tuple(VERBS))
    raise UsageError(f"there is no {what} {word!r}", hint=_guess(word, known, "fleet"))


def parser_of(verb: Verb) -> Parser:
    """The parser of one verb."""
    parser = Parser(
        prog=f"fleet {verb.name}",
        description=verb.help[0].upper() + verb.help[1:] + ".",
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    add_flags(verb, parser)
    return parser


def add_flags(verb: Verb, parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of a verb."""
    module = importlib.import_module(f"fleet.cli.verbs.{verb.name}")
    getattr(module, f"{verb.name}_flags")(parser)


def whole() -> argparse.ArgumentParser:
    """One parser with every verb, for completion scripts."""
    parser = argparse.ArgumentParser(prog="fleet", allow_abbrev=False)
    below: Any = parser.add_subparsers(dest="verb", metavar="VERB")
    for verb in VERBS.values():
        add_flags(verb, below.add_parser(verb.name, help=verb.help, description=verb.help, allow_abbrev=False))
    return parser


def _guess(word: str, known: Iterable[str], prog: str) -> str:
    near = closest(word.partition("=")[0], known)
    return f"did you mean {near!r}?" if near else f"see `{prog} --help`"
