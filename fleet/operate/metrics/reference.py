"""The page of metrics, from the catalogue: ``python -m fleet.operate.metrics.reference docs/monitoring/README.md``.

Only what stands between the two marks is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from fleet.operate.metrics.catalogue import CHAPTERS

BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"


def tables() -> str:
    """Every metric, a table per chapter."""
    return "\n".join(_lines())


def page(text: str) -> str:
    """The page with the tables of today. Raises ValueError where it lacks a mark."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def _lines() -> Iterator[str]:
    for title, metrics in CHAPTERS:
        yield f"### {title}\n"
        yield "| metric | kind | labels | |\n|---|---|---|---|"
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
        yield ""


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(page(target.read_text()))
