"""Takes the picture of ``fleet top`` in a pseudo terminal under the load of examples/04-balance:
``python -m docs.draw_top``."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from docs.example_load import PICTURES, SECOND_BURST_SECONDS, fleet_of_example

WIDTH, HEIGHT = 80, 24
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlsu]")
_LEFT_OUT = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)


class Terminal:
    """One command on a terminal of its own."""

    def __init__(self, words: list[str], environ: Mapping[str, str]) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        env = {**environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        env.pop("NO_COLOR", None)
        self._process = subprocess.Popen(words, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._seen = ""

    def screen(self, after_seconds: float) -> list[str]:
        """The last whole screen after so long, a line each, colours as they were written."""
        end = time.monotonic() + after_seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._mine], [], [], left)[0]:
                self._seen = (self._seen + os.read(self._mine, 1 << 16).decode(errors="replace"))[-(1 << 18) :]
        whole = [part for part in self._seen.split("\x1b[H") if "\x1b[J" in part][-1]
        return _CONTROLS.sub("", whole.partition("\x1b[J")[0]).replace("\r", "").split("\n")

    def leave(self) -> None:
        """As a person does."""
        os.write(self._mine, b"q")
        self._process.wait(30)
        os.close(self._mine)


def svg_of(lines: list[str], title: str) -> str:
    """A terminal with these lines, which loads nothing from elsewhere."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        for line in lines:
            console.print(Text.from_ansi(line), no_wrap=True, overflow="crop", soft_wrap=True)
        drawn = console.export_svg(title=title, theme=MONOKAI)
    return _LEFT_OUT.sub("", drawn).replace("Fira Code, monospace", "monospace")


def main() -> None:
    """Up, load, picture, down."""
    with fleet_of_example() as (fleet, playing):
        terminal = Terminal([str(Path(sys.executable).parent / "fleet"), "top", "--fleet", "balance"], fleet.env)
        try:
            playing.start()
            lines = terminal.screen(SECOND_BURST_SECONDS)
        finally:
            terminal.leave()
    path = PICTURES / "top.svg"
    path.write_text(svg_of(lines, "fleet top"))
    print("\n".join(lines))
    print(f"{path}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
