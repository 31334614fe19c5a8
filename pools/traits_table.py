"""The capability table of the documentation, made from ``traits``.

``python -m pools.traits_table docs/pools.md`` writes it between the two marks of that file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pools.traits import TRAITS, Traits

BEGIN = "<!-- capabilities: made by python -m pools.traits_table -->"
END = "<!-- end of capabilities -->"

_QUESTIONS = (
    ("slots are processes", "own_processes"),
    ("tasks may use signals", "signal_safe"),
    ("greenlets (patched program)", "is_green"),
    ("soft time limit", "soft_limit"),
    ("hard time limit", "hard_limit"),
    ("end a running task", "terminate"),
    ("… one that waits in a blocking call", "reaches_waiting"),
    ("… one that computes without a pause", "reaches_computing"),
    ("change slots while running", "resize"),
    ("recycle by tasks", "recycle_tasks"),
    ("recycle by memory", "recycle_memory"),
    ("recycle by age", "recycle_age"),
    ("tasks may start processes", "task_children"),
    ("tasks may use `multiprocessing.Pool`", "multiprocessing"),
    ("tasks may block", "blocking_calls"),
    ("`async def` tasks", "async_tasks"),
    ("tasks compute in parallel", "parallel_cpu"),
)


def capability_table() -> str:
    """The table in Markdown: a row per capability, a column per pool."""
    rows = [row for row in TRAITS.values() if row.name != "custom"]
    lines = [
        _line("", *(row.name for row in rows)),
        _line("---", *(":---:" for _ in rows)),
        _line("a slot is", *(row.summary for row in rows)),
        _line("slots", *(_slots(row) for row in rows)),
    ]
    lines += [_line(text, *("yes" if getattr(row, field) else "–" for row in rows)) for text, field in _QUESTIONS]
    return "\n".join(lines)


def with_current_table(text: str) -> str:
    """The document with what stands between its marks replaced by the table of today."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{capability_table()}\n{END}{after}"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _slots(row: Traits) -> str:
    return "any number" if row.fixed_slots is None else str(row.fixed_slots)


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(with_current_table(document.read_text(encoding="utf-8")), encoding="utf-8")
