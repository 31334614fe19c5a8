"""What is printed, where: facts on stdout (as text or JSON), everything else on stderr; colour only on a terminal."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TextIO

from fleet.errors import FleetError, ManifestError

_CODES: Mapping[str, str] = {
    "good": "32",
    "wait": "33",
    "bad": "31",
    "dim": "2",
    "bold": "1",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
GROUP_COLOURS = ("36", "35", "34", "33", "32", "96", "95", "94", "93", "92")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table. ``style`` is a name of this module's codes; ``right`` aligns numbers."""

    text: str
    style: str = ""
    right: bool = False


Row = Sequence[Cell]


def wants_colour(stream: TextIO) -> bool:
    """Whether the stream is a terminal and neither NO_COLOR nor TERM=dumb forbids colour."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


class Output:
    """The two streams of one command. ``has_printed``: a document of it stands on stdout."""

    has_printed: ClassVar[bool] = False

    def __init__(self, *, is_json: bool = False, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.is_json = is_json
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr

    @classmethod
    def of(cls, args: argparse.Namespace) -> Output:
        """The streams of this process, in the form that the verb's flags ask for."""
        return cls(is_json=getattr(args, "output", "text") == "json")

    @property
    def colour(self) -> bool:
        """Whether facts may be coloured."""
        return not self.is_json and wants_colour(self.stdout)

    @property
    def is_live(self) -> bool:
        """Whether stderr is a terminal on which a progress bar makes sense."""
        return self.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def facts(self, text: str) -> None:
        """Print facts to stdout, as text."""
        print(text.rstrip("\n"), file=self.stdout, flush=True)

    def document(self, document: Any) -> None:
        """Print facts to stdout, as one JSON document."""
        Output.has_printed = True
        indent = 2 if self.stdout.isatty() else None
        print(json.dumps(document, ensure_ascii=False, indent=indent), file=self.stdout, flush=True)

    def line(self, document: Any) -> None:
        """Print one document of a stream, on one line."""
        print(json.dumps(document, ensure_ascii=False, separators=(",", ":")), file=self.stdout, flush=True)

    def say(self, text: str) -> None:
        """Print a message to stderr."""
        print(text, file=self.stderr, flush=True)

    def either(self, document: Any, text: str) -> None:
        """The document with ``-o json``, else the text."""
        if self.is_json:
            self.document(document)
        else:
            self.facts(text)

    def can_ask(self) -> bool:
        """Whether a person can answer: stdin and stderr are terminals."""
        return sys.stdin.isatty() and self.stderr.isatty()

    def confirmed(self, question: str) -> bool:
        """Ask on the terminal; anything but yes is no."""
        self.stderr.write(f"{question} [y/N] ")
        self.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


def error_document(error: FleetError) -> dict[str, Any]:
    """A failure for scripts. code: the kind of error, like ``not_ready``.  problems: of a manifest, one text each."""
    code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
    problems = [str(problem) for problem in error.problems] if isinstance(error, ManifestError) else []
    return {"error": {"code": code, "message": error.message, "hint": error.hint, "problems": problems}}


def clock() -> str:
    """The time of day of a line in a log."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def painted(text: str, style: str, *, colour: bool) -> str:
    """The text in the colour of a style."""
    code = _CODES.get(style, style)
    return f"\033[{code}m{text}\033[0m" if colour and code else text


def group_colour(group: str) -> str:
    """The style of a group: the same in every verb, every time."""
    return GROUP_COLOURS[zlib.crc32(group.encode(errors="replace")) % len(GROUP_COLOURS)]


def table(head: Sequence[str], rows: Sequence[Row], *, colour: bool = False) -> str:
    """Columns as wide as they need to be, two spaces between; the last one is not padded."""
    widths = [max([len(title), *(len(row[i].text) for row in rows)]) for i, title in enumerate(head)]
    right = [all(row[i].right for row in rows) and bool(rows) for i in range(len(head))]
    lines = [_line([Cell(title, "bold", right[i]) for i, title in enumerate(head)], widths, colour)]
    lines += [_line(row, widths, colour) for row in rows]
    return "\n".join(lines)


def _line(row: Row, widths: Sequence[int], colour: bool) -> str:
    cells = []
    for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
        padding = " " * (width - len(cell.text))
        text = painted(cell.text, cell.style, colour=colour)
        last = number == len(row) - 1
        cells.append(padding + text if cell.right else text if last else text + padding)
    return "  ".join(cells).rstrip()


def cut(lines: Sequence[str], *, height: int) -> list[str]:
    """As many lines as a screen holds; the last one says how many more there are."""
    if len(lines) <= height:
        return list(lines)
    return [*lines[: max(0, height - 1)], f"… {len(lines) - height + 1} more lines"]
