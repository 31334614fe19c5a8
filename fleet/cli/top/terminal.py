"""The terminal that top draws on: a screen of its own, and one key at a time."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

_ENTER, _LEAVE = "\033[?1049h\033[?25l\033[?7l", "\033[?7h\033[?25h\033[?1049l"
"""Another screen, no cursor, and no new line where a letter takes more room than one column."""
_SEQUENCES = {
    "\033[A": "up",
    "\033[B": "down",
    "\033OA": "up",
    "\033OB": "down",
    "\033[5~": "pageup",
    "\033[6~": "pagedown",
    "\033[H": "home",
    "\033[F": "end",
    "\033OH": "home",
    "\033OF": "end",
    "\033[1~": "home",
    "\033[4~": "end",
    "\033": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
}
_REST_SECONDS = 0.05
"""The rest of a key that sends several bytes comes within this time of its first."""


class Terminal:
    """Standard output and input of this process; without keys where input is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else None

    @contextlib.contextmanager
    def opened(self) -> Iterator[Terminal]:
        """Its own screen, keys unseen and at once; everything as before at the end, whatever happens."""
        before = termios.tcgetattr(self._input) if self._input is not None else None
        handler = signal.signal(signal.SIGTERM, _leave)
        try:
            if self._input is not None:
                tty.setcbreak(self._input)
            self._write(_ENTER)
            yield self
        finally:
            self._write(_LEAVE)
            if self._input is not None and before is not None:
                termios.tcsetattr(self._input, termios.TCSADRAIN, before)
            signal.signal(signal.SIGTERM, handler)

    def size(self) -> tuple[int, int]:
        """Columns and lines now."""
        try:
            found = os.get_terminal_size(self._out.fileno())
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    def show(self, lines: Sequence[str]) -> None:
        """Replace what is on the screen, in one write and without a flicker."""
        self._write("\033[H" + "\r\n".join(f"{line}\033[K" for line in lines) + "\033[J")

    def keys(self, *, until: float) -> Iterator[str]:
        """Keys as they are pressed, to this moment (monotonic seconds)."""
        while (left := until - time.monotonic()) > 0:
            if self._input is None:
                time.sleep(left)
            elif select.select([self._input], [], [], left)[0]:
                raw = os.read(self._input, 64).decode(errors="replace")
                if not raw:
                    return
                if raw == "\033" and select.select([self._input], [], [], _REST_SECONDS)[0]:
                    raw += os.read(self._input, 64).decode(errors="replace")
                yield from keys_in(raw)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _leave(number: int, _frame: FrameType | None) -> None:
    """TERM ends a program without a word; the screen must be put back first."""
    raise SystemExit(128 + number)


def keys_in(raw: str) -> Iterator[str]:
    """The keys that sent these characters: a name for each that is known, else the character itself."""
    while raw:
        found = next((one for one in sorted(_SEQUENCES, key=len, reverse=True) if raw.startswith(one)), raw[0])
        yield _SEQUENCES.get(found, found)
        raw = raw[len(found) :]
