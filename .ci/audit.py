"""Compares the pins with recorded vulnerabilities: `make audit`. Exit 1 where one is neither fixed nor accepted.

The list beside this file is kept by hand; nothing is asked outside. fixed: the first sound version, null where there is
none.  checked: the day on which it was compared with what is published.  accepted: why it stays.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).resolve().parent
PINS = (HERE.parent / "constraints.txt", HERE.parent / "pyproject.toml")


def main(pins: tuple[Path, ...] = PINS, known: Path = HERE / "known_vulnerabilities.json") -> int:
    pinned = {name: version for path in pins for name, version in pins_in(path.read_text())}
    bad = 0
    for one in json.loads(known.read_text()):
        version = pinned.get(canonicalize_name(one["package"]))
        if version is None or (one["fixed"] and version >= Version(one["fixed"])):
            continue
        text = f"{one['package']} {version}: {one['id']}, fixed in {one['fixed'] or 'no version'}"
        print(f"accepted: {text}: {one['accepted']}" if "accepted" in one else f"VULNERABLE: {text}")
        bad += "accepted" not in one
    print(f"{len(pinned)} pins, {bad} with a known vulnerability")
    return 1 if bad else 0


def pins_in(text: str) -> list[tuple[str, Version]]:
    found = re.findall(r"""^\W*(?:requires = \[")?([A-Za-z0-9._-]+)==([0-9][^\s;"\\]*)""", text, re.MULTILINE)
    return [(canonicalize_name(name), Version(version)) for name, version in found]


if __name__ == "__main__":
    sys.exit(main())
