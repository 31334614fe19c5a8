"""Draws docs/architecture.svg from the imports and the layers of the tests: ``python -m docs.draw_architecture``."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from tests.architecture.imports import ROOT, home_of, modules, running_imports, tree_of, within
from tests.architecture.layers import LAYERS

PICTURE = Path(__file__).with_name("architecture.svg")
WIDTH, MARGIN, GAP, LINE = 1180, 24, 34, 15
INSIDE = ("fleet.core", "fleet.worker")
"""The two parts that are drawn with the rows of their rooms; of the others the contents are named."""

MOST_IN_A_ROW = 3

STYLE = """
  svg { background: #ffffff; font-family: system-ui, sans-serif; }
  .box { fill: #f4f7fb; stroke: #35507a; stroke-width: 1.2; }
  .room { fill: #ffffff; stroke: #8fa3c2; stroke-width: 0.8; }
  .pure { fill: #eef7ee; stroke: #3f7a4a; }
  .name { font-size: 14px; font-weight: 600; fill: #1c2b45; }
  .small { font-size: 11px; fill: #44546e; }
  .arrow { fill: none; stroke: #35507a; stroke-width: 1; opacity: 0.3; }
  @media (prefers-color-scheme: dark) {
    svg { background: #10151d; } .box { fill: #1a2331; stroke: #7f9cc9; } .room { fill: #121925; stroke: #516a91; }
    .pure { fill: #16261a; stroke: #6fae7c; } .name { fill: #dfe8f6; } .small { fill: #a9b8cf; }
    .arrow { stroke: #9db6de; }
  }
"""


@dataclass(slots=True)
class Box:
    """A part of the project: where it is drawn, and the rooms inside it in rows."""

    name: str
    label: str
    story: list[str]
    rooms: list[list[str]] = field(default_factory=list)
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0


def story_of(name: str) -> str:
    """The first sentence of a part's docstring."""
    text = ast.get_docstring(tree_of(name)) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("``", "").rstrip(".")


def contents(name: str) -> str:
    """The files and folders of a part, by name; those of an inner folder in brackets."""
    below = [module.removeprefix(f"{name}.") for module in modules() if module.startswith(f"{name}.")]
    inside = sorted({module.partition(".")[0] for module in below})
    return ", ".join(
        f"{each}/ ({contents(f'{name}.{each}')})" if is_folder(f"{name}.{each}") else each for each in inside
    )


def is_folder(name: str) -> bool:
    return modules()[name].name == "__init__.py"


def files_in(name: str) -> int:
    return sum(within(module, name) for module in modules())


def boxes() -> list[list[Box]]:
    """The parts of ``fleet`` row by row, the pools last."""
    rows = [[f"fleet.{part}" for part in row.split()] for row in LAYERS["fleet"]]
    return [[box(name, room=(WIDTH - 2 * MARGIN) / len(row)) for name in row] for row in [*rows, ["pools"]]]


def box(name: str, *, room: float) -> Box:
    path, count, letters = name.replace(".", "/"), files_in(name), max(16, int((room - 44) / 6.0))
    if not is_folder(name):
        return Box(name, f"{path}.py", textwrap.wrap(story_of(name), letters))
    rooms = [list(part) for row in LAYERS[name] for part in batched(row.split())] if name in INSIDE else []
    listed = [] if rooms else textwrap.wrap(contents(name), letters, break_on_hyphens=False)
    return Box(name, f"{path}/  ({count} files)", [*textwrap.wrap(story_of(name), letters), *listed], rooms)


def batched(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), MOST_IN_A_ROW):
        yield names[start : start + MOST_IN_A_ROW]


def place(rows: list[list[Box]]) -> float:
    """Give every box its place; the height of the whole picture."""
    y = float(MARGIN)
    for row in rows:
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        height = max(30 + LINE * len(each.story) + 27 * len(each.rooms) for each in row)
        for position, each in enumerate(row):
            each.x, each.y = MARGIN + position * (width + GAP), y
            each.width, each.height = width, height
        y += height + GAP
    return y - GAP + MARGIN


def arrows(rows: list[list[Box]]) -> list[tuple[Box, Box, int]]:
    """Who imports whom, and in how many places."""
    places = {each.name: each for row in rows for each in row}
    counts: dict[tuple[str, str], int] = {}
    for one in running_imports():
        ends = part(one.module, places), part(home_of(one.target), places)
        if all(ends) and ends[0] != ends[1]:
            counts[ends] = counts.get(ends, 0) + 1
    return [(places[above], places[below], count) for (above, below), count in sorted(counts.items())]


def part(module: str, places: dict[str, Box]) -> str:
    return next((name for name in places if module and within(module, name)), "")


def drawn(rows: list[list[Box]], height: float) -> Iterator[str]:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">'
    yield '<title id="title">Who imports whom in fleet: every arrow runs downwards</title>'
    yield f"<style>{STYLE}</style>"
    for above, below, count in arrows(rows):
        x1, y1 = above.x + above.width / 2, above.y + above.height
        x2, y2 = below.x + below.width / 2, below.y
        bend = (y2 - y1) / 2
        title = f"<title>{above.name} imports {below.name} ({count})</title>"
        path = f"M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + bend:.0f} {x2:.0f},{y2 - bend:.0f} {x2:.0f},{y2:.0f}"
        yield f'<path class="arrow" d="{path}">{title}</path>'
    for row in rows:
        for each in row:
            yield from drawn_box(each)
    yield "</svg>"


def drawn_box(each: Box) -> Iterator[str]:
    kind = "box pure" if each.name == "fleet.core" else "box"
    place = f'x="{each.x:.0f}" y="{each.y:.0f}" width="{each.width:.0f}" height="{each.height:.0f}"'
    yield f'<rect class="{kind}" {place} rx="6"/>'
    yield f'<text class="name" x="{each.x + 12:.0f}" y="{each.y + 20:.0f}">{escape(each.label)}</text>'
    for line, text in enumerate(each.story):
        yield f'<text class="small" x="{each.x + 12:.0f}" y="{each.y + 37 + LINE * line:.0f}">{escape(text)}</text>'
    top = each.y + 30 + LINE * len(each.story)
    for line, names in enumerate(each.rooms):
        width = (each.width - 24 - 6 * (len(names) - 1)) / len(names)
        for position, name in enumerate(names):
            x, y = each.x + 12 + position * (width + 6), top + 27 * line
            yield f'<rect class="room" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="22" rx="4"/>'
            label = escape(room_label(f"{each.name}.{name}", width))
            yield f'<text class="small" x="{x + 8:.0f}" y="{y + 15:.0f}">{label}</text>'


def room_label(name: str, width: float) -> str:
    short = name.rpartition(".")[2]
    text = f"{short}/  {story_of(name)}" if is_folder(name) else f"{short}.py  {story_of(name)}"
    return textwrap.shorten(text, int(width / 6.2), placeholder=" …") if width > 260 else short


def picture() -> str:
    rows = boxes()
    height = place(rows)
    return "\n".join(drawn(rows, height)) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PICTURE.write_text(picture())
    print(f"wrote {PICTURE.relative_to(ROOT)}")
