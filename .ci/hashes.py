"""Writes constraints.hashes.txt: the pins with the sha256 of the files that this machine's pip takes for them.

`make hashes`. For `pip install --require-hashes --no-deps -r constraints.hashes.txt`: then a file that was replaced at
the index is refused. It is for one kind of machine (the one that wrote it): wheels differ by system and Python.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    pins = (ROOT / "constraints.txt").read_text()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*command, "-r", str(ROOT / "constraints.txt")], check=True)
        found = {name_of(path.name): path for path in sorted(Path(folder).iterdir())}
        lines = [line_of(pin, found) for pin in re.findall(r"^[A-Za-z0-9._-]+==\S+", pins, re.MULTILINE)]
    python = ".".join(map(str, sys.version_info[:2]))
    head = f"# Made by `make hashes` on {sys.platform} with Python {python}; do not edit.\n"
    (ROOT / "constraints.hashes.txt").write_text(head + "".join(lines))
    print(f"constraints.hashes.txt: {len(lines)} pins")
    return 0


def name_of(file: str) -> str:
    return parse_wheel_filename(file)[0] if file.endswith(".whl") else parse_sdist_filename(file)[0]


def line_of(pin: str, found: dict[str, Path]) -> str:
    path = found[canonicalize_name(pin.partition("==")[0])]
    return f"{pin} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


if __name__ == "__main__":
    sys.exit(main())
