"""What others are told of a commit: one state and one line for its status, and a comment for its pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fleet.operate.sync.state import Fetched, Reconciled

State = Literal["pending", "success", "failure"]
LONGEST_LINE = 140
LONGEST_COMMENT = 60_000


@dataclass(frozen=True, slots=True)
class Report:
    """What is said of one commit."""

    commit: str
    state: State
    line: str
    comment: str = ""


def reports(name: str, fetched: Fetched, reconciled: Reconciled) -> tuple[Report, ...]:
    """What is to be said now: of the newest commit, and of the one the fleet is on its way to."""
    said: list[Report] = []
    if fetched.seen and fetched.seen != fetched.good:
        refused = next((one for one in fetched.conditions.all() if one.state == "False"), None)
        if refused is not None and refused.revision == fetched.seen:
            line = _first_line(fetched.problems, refused.message)
            said.append(_report(name, fetched.seen, "failure", line, refused.message))
    if fetched.good:
        said.append(_of_good(name, fetched.good, reconciled))
    return tuple(said)


def _of_good(name: str, commit: str, state: Reconciled) -> Report:
    ready, planned, applying = (state.conditions.get(stage) for stage in ("Ready", "Planned", "Applying"))
    if state.applied == commit:
        if ready.state == "False":
            return _report(name, commit, "failure", f"{ready.reason}: {ready.message}", ready.message)
        return _report(name, commit, "success", f"applied as revision {state.revision}", state.plan_text)
    failed = next((one for one in (applying, planned) if one.state == "False" and one.revision == commit), None)
    if failed is not None:
        return _report(name, commit, "failure", f"{failed.reason}: {failed.message}", failed.message)
    if state.previewed == commit:
        return _report(name, commit, "pending", f"{ready.reason}: {planned.message}", state.plan_text)
    line = f"{ready.reason}: {ready.message}" if ready.state == "Unknown" and ready.message else "on its way"
    return _report(name, commit, "pending", line)


def _report(name: str, commit: str, state: State, line: str, detail: str = "") -> Report:
    flat = " ".join(line.split())
    short = flat if len(flat) <= LONGEST_LINE else f"{flat[: LONGEST_LINE - 1]}…"
    return Report(commit, state, short, comment(name, commit, state, short, detail) if detail else "")


def comment(name: str, commit: str, state: str, line: str, detail: str) -> str:
    """Markdown, with a mark by which the next one finds it and takes its place."""
    fence = "`" * max(3, _longest_run(detail) + 1)
    body = detail.strip()[:LONGEST_COMMENT]
    return f"{marker(name)}\n**fleet sync {name}**: {state} for {commit[:12]}\n\n{line}\n\n{fence}\n{body}\n{fence}\n"


def marker(name: str) -> str:
    """What a comment of this source begins with; it is not shown."""
    return f"<!-- fleet-sync:{name} -->"


def _longest_run(text: str) -> int:
    longest = run = 0
    for letter in text:
        run = run + 1 if letter == "`" else 0
        longest = max(longest, run)
    return longest


def _first_line(problems: Sequence[Mapping[str, Any]], message: str) -> str:
    if not problems:
        return message
    first = problems[0]
    place = f"{first['source']}:{first['line']}" if first["line"] else str(first["source"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {first['message']}{more}"
