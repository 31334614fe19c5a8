"""history: the revisions that were applied."""

from __future__ import annotations

import argparse
from typing import Any

from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.output import Cell, Output, table
from fleet.cli.target import applied_or_told, fleet_of, no_names, output_flag, target_flags, target_of
from fleet.core.expand.facts import Facts
from fleet.state.overrides import moment
from fleet.state.revisions import History, Revision


def history_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    place_flags(parser)
    output_flag(parser)


def history(args: argparse.Namespace, out: Output) -> int:
    """The revisions that are kept."""
    target = target_of(args)
    no_names(target)
    if (there := in_cluster(args, target)) is not None:
        return _show(there.fleet.name, there.fleet.history, (there.fleet.history.numbers() or [0])[-1], out)
    fleet = fleet_of(target)
    applied = applied_or_told(fleet, out)
    return _show(fleet.name, fleet.history, applied.revision if applied is not None else 0, out)


def _show(name: str, history: History, current: int, out: Output) -> int:
    revisions = history.all()
    documents = [_revision_document(one, current=one.number == current) for one in revisions]
    rows = [_revision_row(one, current=one.number == current) for one in revisions]
    for number in history.damaged():
        out.say(f"warning: revision {number} is damaged and left out")
    text = table(("REVISION", "APPLIED", "BY", "OUTCOME", "GIT", "MESSAGE"), rows, colour=out.colour)
    out.either({"fleet": name, "revisions": documents}, text if rows else "nothing was applied yet")
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
