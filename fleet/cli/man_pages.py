"""Manual pages made from the parsers: ``python -m fleet.cli.man_pages [FOLDER]`` writes one for fleet and one per verb.

Without FOLDER they go where ``man`` looks for the programs of this environment, so that ``man fleet-apply`` works.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from fleet._version import __version__
from fleet.cli.parser import parser_of
from fleet.cli.verb_list import CHAPTERS, EXIT_CODES, VERBS, Verb
from fleet.settings import Settings

SECTION = 1
ABOUT = (
    "A manifest describes groups of workers. fleet compares it with what runs, shows what it would change and why, and "
    "makes that change. Several manifests are merged from left to right."
)
WITHOUT_MANIFEST = (
    "Without a manifest and without --fleet, fleet.yaml in this folder is used, else the only fleet under FLEET_HOME."
)
_USAGE_COLUMNS = 10_000
"""The usage is one line: the reader's terminal breaks it."""


def main(argv: Sequence[str]) -> int:
    folder = Path(argv[0]) if argv else Path(sys.prefix) / "share" / "man"
    where = folder / f"man{SECTION}"
    where.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (where / name).write_text(text, encoding="ascii")
    print(f"{len(VERBS) + 1} pages in {where}")
    return 0


def pages() -> dict[str, str]:
    """File name -> roff, in ASCII."""
    made = {f"fleet-{verb.name}.{SECTION}": page_of(verb) for verb in VERBS.values()}
    return {f"fleet.{SECTION}": overview_page(), **made}


def overview_page() -> str:
    """The page of ``fleet`` itself."""
    lines = [*_head("fleet"), *_name("fleet", "task workers, declared in a YAML manifest")]
    lines += [
        ".SH SYNOPSIS",
        rf".B fleet \fIVERB\fR [\fIMANIFEST\fR{_text('…')}] [{_text('flags')}]",
        ".SH DESCRIPTION",
    ]
    lines += [_line(ABOUT), ".PP", _line(WITHOUT_MANIFEST)]
    for title, verbs in CHAPTERS:
        lines.append(f".SH {title.upper()}")
        for verb in verbs:
            lines += [".TP", rf".BR fleet\-{verb.name} ({SECTION})", _line(verb.help)]
    lines += [*_exit_status(), ".SH ENVIRONMENT"]
    for setting in fields(Settings):
        lines += [".TP", f".B FLEET_{setting.name.upper()}", _line(setting.metadata["description"])]
    lines += [".TP", ".B NO_COLOR", _line("set to anything: no colours")]
    return "\n".join(lines) + "\n"


def page_of(verb: Verb) -> str:
    """The page of one verb."""
    parser = parser_of(verb)
    name = f"fleet-{verb.name}"
    lines = [*_head(name), *_name(name, verb.help), ".SH SYNOPSIS", *_synopsis(verb, parser), ".SH DESCRIPTION"]
    lines += [_line(parser.description or verb.help)]
    if parser.epilog:
        lines += [".PP", ".nf", *map(_line, parser.epilog.splitlines()), ".fi"]
    formatter = parser._get_formatter()
    arguments = [action for action in parser._actions if not action.option_strings]
    options = [action for action in parser._actions if action.option_strings]
    for title, actions in (("ARGUMENTS", arguments), ("OPTIONS", options)):
        shown = [action for action in actions if action.help is not argparse.SUPPRESS]
        lines += [f".SH {title}"] if shown else []
        for action in shown:
            lines += [".TP", _flags(action, formatter), _line(formatter._expand_help(action) if action.help else "")]
    return "\n".join([*lines, *_exit_status(), *_see_also(verb)]) + "\n"


def _head(name: str) -> list[str]:
    return [rf'.TH {_text(name.upper())} {SECTION} "{_today()}" "fleet {__version__}" "fleet"']


def _today() -> str:
    """The day on which the pages are made; SOURCE_DATE_EPOCH gives the same bytes on every day."""
    now = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def _name(name: str, summary: str) -> list[str]:
    return [".SH NAME", rf"{_text(name)} \- {_text(summary)}"]


def _synopsis(verb: Verb, parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = argparse.HelpFormatter(parser.prog, width=_USAGE_COLUMNS)
    formatter.add_usage(None, parser._actions, parser._mutually_exclusive_groups, prefix="")
    yield f".B fleet {_text(verb.name)}"
    if rest := formatter.format_help().strip().removeprefix(parser.prog).strip():
        yield _line(rest)


def _flags(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """``-n, --lines N`` with the flags bold and the value in italics."""
    value = ""
    if action.nargs != 0:
        default = action.dest.upper() if action.option_strings else action.dest
        value = " ".join(rf"\fI{_text(part)}\fR" for part in formatter._format_args(action, default).split())
    flags = ", ".join(rf"\fB{_text(flag)}\fR" for flag in action.option_strings)
    return " ".join(part for part in (flags, value) if part)


def _exit_status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, _, meaning in (each.partition(" ") for each in EXIT_CODES):
        yield from (".TP", f".B {code}", _line(meaning))


def _see_also(verb: Verb) -> Iterator[str]:
    near = next(verbs for _, verbs in CHAPTERS if verb in verbs)
    names = ["fleet", *(f"fleet-{other.name}" for other in near if other != verb)]
    yield ".SH SEE ALSO"
    yield from (f".BR {_text(name)} ({SECTION})" + ("" if name == names[-1] else " ,") for name in names)


def _line(text: str) -> str:
    r"""A line of text: one that begins with a dot or a quote is no request."""
    written = _text(text)
    return rf"\&{written}" if written.startswith((".", "'")) else written


def _text(text: str) -> str:
    """Text as roff in ASCII; a minus stays a minus, so that flags can be copied."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga").replace("'", r"\(aq")
    return re.sub(r"[^\x00-\x7f]", lambda found: rf"\[u{ord(found[0]):04X}]", " ".join(text.split("\n")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
