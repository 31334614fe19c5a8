"""The pages of the documentation as the repository has them: which there are, their links, their anchors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATTERNS = ("README.md", "docs/**/*.md", "examples/**/README.md", "bench/README.md", "CHANGELOG.md", "DECISIONS.md")

_FENCE = re.compile(r"^ *(`{3,}|~{3,})")
_LINK = re.compile(r"(?<=\]\()[^()\s]+(?=\))")
_INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$")
_HTML_ANCHOR = re.compile(r"""<[a-z]+ [^>]*\b(?:id|name)=["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class Link:
    """A relative link of a page. ``target`` is what it names, from the root of the repository; None: outside."""

    page: Path
    line: int
    text: str
    target: Path | None
    anchor: str


def pages() -> list[Path]:
    """Every page, as a path from the root of the repository."""
    return sorted({path.relative_to(ROOT) for pattern in PATTERNS for path in ROOT.glob(pattern)})


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines outside of fenced code, with their numbers from 1."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and line.strip() == found[1]:
                fence = ""
        elif found:
            fence = found[1]
        else:
            yield number, line


def links(page: Path, text: str) -> Iterator[Link]:
    """The relative links of a page; ``page`` is its path from the root of the repository."""
    for number, line in prose(text):
        for match in _LINK.finditer(without_code(line)):
            if "://" not in match[0] and not match[0].startswith("mailto:"):
                path, _, anchor = match[0].partition("#")
                yield Link(page, number, match[0], target(page, path), anchor)


def target(page: Path, path: str) -> Path | None:
    """What a relative path in a page names, from the root of the repository."""
    named = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    return named.relative_to(ROOT) if named.is_relative_to(ROOT) else None


def without_code(line: str) -> str:
    """The line with blanks in place of inline code, so that columns stay."""
    return _INLINE_CODE.sub(lambda match: " " * len(match[0]), line)


def anchors(text: str) -> set[str]:
    """The anchors of a page: those that code hosts make of its headings, and those written as HTML."""
    found: set[str] = set()
    times: Counter[str] = Counter()
    for _, line in prose(text):
        found.update(_HTML_ANCHOR.findall(line))
        if heading := _HEADING.match(line):
            name = anchor_of(heading[1])
            found.add(f"{name}-{times[name]}" if times[name] else name)
            times[name] += 1
    return found


def anchor_of(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
