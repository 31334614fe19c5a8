"""A plan as text for people and as a JSON document for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from fleet.core.desired import is_replica, split_name
from fleet.core.plan import GLYPHS, Action, Plan, Step, Usage
from fleet.core.planning.budget import amount
from fleet.core.text.format import counted, duration, listed

_LEAVES = frozenset({Action.DRAIN, Action.STOP, Action.FORGET})
_COLOURS = {
    Action.START: "32",
    Action.REPLACE: "33",
    Action.RESIZE: "33",
    Action.RESTART: "33",
    Action.DRAIN: "31",
    Action.STOP: "31",
    Action.FORGET: "31",
    Action.REAP: "35",
    Action.HOLD: "36",
    Action.RELEASE: "36",
    Action.KEEP: "2",
}
_SUMMARY_WORDS = (
    ("start", "to start"),
    ("replace", "to replace"),
    ("resize", "to resize"),
    ("restart", "to restart"),
    ("stop", "to stop"),
    ("reap", "to reap"),
    ("hold", "to hold"),
    ("release", "to release"),
    ("keep", "untouched"),
)
_ALWAYS_COUNTED = ("start", "replace", "resize", "restart", "stop", "keep")


def text(plan: Plan, *, verbose: bool = False, colour: bool = False) -> str:
    """One line per step, then notes, budgets and a summary. ``verbose`` also lists what is kept."""
    steps = plan.steps if verbose else plan.changes
    told = [*(f"note: {note}" for note in plan.notes), *(f"warning: {text}" for text in plan.warnings)]
    blocks = [_step_lines(steps, colour), told]
    blocks += [_usage_lines(plan.usage) if not plan.is_empty or verbose else [], [*_last_lines(plan)]]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def document(plan: Plan) -> dict[str, Any]:
    """The plan for scripts; kept replicas are only counted."""
    return {
        "fleet": plan.fleet,
        "summary": summary(plan),
        "steps": [_step_document(step) for step in plan.changes],
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "budgets": [_usage_document(used) for used in plan.usage],
        "worstCaseSeconds": plan.worst_case_seconds,
        "fingerprint": plan.observed_fingerprint,
    }


def summary(plan: Plan) -> dict[str, int]:
    """Replicas per kind of change. Every replica counts once, and spares, which come and go, not at all."""
    actions: dict[str, list[Action]] = {}
    reaped = 0
    for step in plan.steps:
        if step.action is Action.REAP:
            reaped += 1
        else:
            actions.setdefault(step.replica, []).append(step.action)
    counts = dict.fromkeys((key for key, _ in _SUMMARY_WORDS), 0) | {"reap": reaped}
    for taken in actions.values():
        if kind := _kind(taken):
            counts[kind] += 1
    return {key: count for key, count in counts.items() if count or key in _ALWAYS_COUNTED}


def _kind(actions: Sequence[Action]) -> str:
    """What happens to a replica as a whole, from its steps in order; empty for a spare."""
    first, last = actions[0], actions[-1]
    if first is Action.START and last in _LEAVES:
        return ""
    if Action.RESIZE in actions:
        return str(Action.RESIZE)
    if first in _LEAVES:
        return "replace" if last not in _LEAVES else "stop"
    return str(first)


def _step_lines(steps: Sequence[Step], colour: bool) -> list[str]:
    rows = list(_folded(steps))
    name_width = max((len(name) for name, _ in rows), default=0)
    action_width = max((len(step.action) for _, step in rows), default=0)
    return [_coloured(_line(name, step, name_width, action_width), step.action, colour) for name, step in rows]


def _line(name: str, step: Step, name_width: int, action_width: int) -> str:
    line = f"{GLYPHS[step.action]} {name:<{name_width}}  {step.action:<{action_width}}  {step.reason}"
    return f"{line}  (after {_waits(step.after)})" if step.after else line


@lru_cache(maxsize=64)
def _waits(after: tuple[str, ...]) -> str:
    """The replicas a step waits for: ``thumbs.0 … thumbs.2, mail.0``."""
    runs: list[list[str]] = []
    for name in sorted({mark.partition(" ")[2] for mark in after}, key=_place):
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return listed((_span(run) for run in runs), most=3)


def _place(name: str) -> tuple[str, int, str]:
    return (*split_name(name), name) if is_replica(name) else (name, -1, name)


def _follows(name: str, following: str) -> bool:
    before, now = _place(name), _place(following)
    return before[0] == now[0] and 0 <= before[1] == now[1] - 1


def _span(names: Sequence[str]) -> str:
    """``a.0``, ``a.0, a.1``, ``a.0 … a.9``."""
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"


def _coloured(line: str, action: Action, colour: bool) -> str:
    return f"\033[{_COLOURS[action]}m{line}\033[0m" if colour else line


def _folded(steps: Iterable[Step]) -> Iterator[tuple[str, Step]]:
    """Each step under its replica's name; neighbours kept for the same reason under one: ``thumbs.0 … thumbs.9``."""
    run: list[Step] = []
    for step in steps:
        if run and not _continues(run[-1], step):
            yield _run_name(run), run[0]
            run = []
        run.append(step)
    if run:
        yield _run_name(run), run[0]


def _continues(last: Step, step: Step) -> bool:
    same = last.action is Action.KEEP and step.action is Action.KEEP and last.reason == step.reason
    return same and _follows(last.replica, step.replica)


def _run_name(run: Sequence[Step]) -> str:
    name = _span([step.replica for step in run])
    return name if run[0].pid is None else f"{name} (pid {run[0].pid})"


def _usage_lines(usages: Sequence[Usage]) -> list[str]:
    if not usages:
        return []
    head = ("budget", "at rest", "at peak", "limit")
    rows = [head, *(_usage_row(used) for used in usages)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        f"{row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return [lines[0], *(f"{line}{_above(used)}" for line, used in zip(lines[1:], usages, strict=True))]


def _above(used: Usage) -> str:
    """The mark of what is above its limit."""
    if used.above_at_rest:
        return f"  ! {amount(used.above_at_rest, used.unit)} above the limit"
    return f"  ! {amount(used.above_at_peak, used.unit)} above the limit at peak" if used.above_at_peak else ""


def _usage_row(used: Usage) -> tuple[str, str, str, str]:
    limit = "-" if used.limit is None else amount(used.limit, used.unit)
    return used.name, amount(used.at_rest, used.unit), amount(used.at_peak, used.unit), limit


def _last_lines(plan: Plan) -> Iterator[str]:
    counts = summary(plan)
    if plan.is_empty:
        yield f"Nothing to do: {counted(counts['keep'], 'replica')} as wanted." if not plan.notes else "Nothing to do."
        return
    parts = [f"{counts[key]} {words}" for key, words in _SUMMARY_WORDS if counts.get(key)]
    yield f"Plan: {', '.join(parts)}."
    if plan.worst_case_seconds:
        yield f"Takes {duration(plan.worst_case_seconds)} in the worst case."


def _step_document(step: Step) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "replica": step.replica,
        "action": str(step.action),
        "reason": step.reason,
        "after": list(step.after),
    }
    return shown if step.pid is None else shown | {"pid": step.pid}


def _usage_document(used: Usage) -> dict[str, Any]:
    return {
        "name": used.name,
        "atRest": used.at_rest,
        "atPeak": used.at_peak,
        "limit": used.limit,
        "unit": used.unit,
        "aboveAtPeak": used.above_at_peak,
    }
