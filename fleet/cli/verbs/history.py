"""history: the revisions that were applied."""

from __future__ import annotations

import argparse
from typing import Any

from fleet.cli.output import Cell, Output, table
from fleet.cli.target import applied_or_told, fleet_of, no_names, output_flag, target_flags, target_of
from fleet.core.expand.facts import Facts
from fleet.state.overrides import moment
from fleet.state.revisions import Revision


def history_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    output_flag(parser)


def history(args: argparse.Namespace, out: Output) -> int:
    """The revisions that are kept."""
    target = target_of(args)
    no_names(target)
    fleet = fleet_of(target)
    applied = applied_or_told(fleet, out)
    current = applied.revision if applied is not None else 0
    revisions = fleet.history.all()
    documents = [_revision_document(one, current=one.number == current) for one in revisions]
    rows = [_revision_row(one, current=one.number == current) for one in revisions]
    for number in fleet.history.damaged():
        out.say(f"warning: revision {number} is damaged and left out")
    text = table(("REVISION", "APPLIED", "BY", "OUTCOME", "GIT", "MESSAGE"), rows, colour=out.colour)
    out.either({"fleet": fleet.name, "revisions": documents}, text if rows else "nothing was applied yet")
    return 0


def _revision_document(revision: Revision, *, current: bool) -> dict[str, Any]:
    return {
        "revision": revision.number,
        "current": current,
        "at": revision.at,
        "by": revision.by,
        "digest": revision.digest,
        "message": revision.message,
        "outcome": revision.outcome,
        "failure": revision.failure,
        "facts": None if revision.facts is None else _facts_document(revision.facts),
        "git": dict(revision.origin.git),
        "sources": list(revision.origin.sources),
    }


def _revision_row(revision: Revision, *, current: bool) -> list[Cell]:
    git = revision.origin.git
    commit = " ".join(word for word in (git.get("sha", "")[:10], git.get("branch", "")) if word)
    return [
        Cell(f"{revision.number}{' *' if current else ''}", "good" if current else ""),
        Cell(moment(revision.at)),
        Cell(revision.by),
        Cell(revision.outcome, {"good": "good", "failed": "bad"}.get(revision.outcome, "")),
        Cell(commit),
        Cell(revision.failure or revision.message or ", ".join(revision.origin.sources)),
    ]


def _facts_document(facts: Facts) -> dict[str, Any]:
    """What it resolved to, for scripts."""
    return {
        "workdir": facts.workdir,
        "python": facts.python,
        "paths": dict(facts.real_paths),
        "secrets": dict(facts.secrets),
        "commit": facts.commit,
    }
