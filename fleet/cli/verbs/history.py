"""history: the revisions that were applied."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fleet.cli.cluster_target import in_cluster, place_flags
from fleet.cli.graph import Node, revision_graph
from fleet.cli.output import Cell, Output, table
from fleet.cli.target import applied_or_told, fleet_of, no_names, output_flag, target_flags, target_of
from fleet.core.expand.facts import Facts
from fleet.core.text.format import one_line
from fleet.state.overrides import moment
from fleet.state.revisions import History, Revision


def history_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    parser.add_argument("--graph", action="store_true", help="as a picture: what came after what, and what went back")
    place_flags(parser)
    output_flag(parser)


def history(args: argparse.Namespace, out: Output) -> int:
    """The revisions that are kept."""
    target = target_of(args)
    no_names(target)
    if (there := in_cluster(args, target)) is not None:
        current = (there.fleet.history.numbers() or [0])[-1]
        return _show(there.fleet.name, there.fleet.history, out, current=current, graph=args.graph)
    fleet = fleet_of(target)
    applied = applied_or_told(fleet, out)
    current = applied.revision if applied is not None else 0
    return _show(fleet.name, fleet.history, out, current=current, graph=args.graph)


def _show(name: str, history: History, out: Output, *, current: int, graph: bool) -> int:
    revisions = history.all()
    documents = [_revision_document(one, current=one.number == current) for one in revisions]
    rows = [_revision_row(one, current=one.number == current) for one in revisions]
    for number in history.damaged():
        out.say(f"warning: revision {number} is damaged and left out")
    if graph and rows and not out.is_json:
        out.facts(revision_graph([_node(one, current=one.number == current) for one in revisions], colour=out.colour))
        return 0
    text = table(("REVISION", "APPLIED", "BY", "OUTCOME", "GIT", "MESSAGE"), rows, colour=out.colour)
    out.either({"fleet": name, "revisions": documents}, text if rows else "nothing was applied yet")
    return 0


def _node(revision: Revision, *, current: bool) -> Node:
    what = revision.failure or revision.message or ", ".join(Path(one).name for one in revision.origin.sources)
    words = "  ".join(one_line(word) for word in (moment(revision.at), revision.by, what) if word)
    return Node(revision.number, revision.outcome, revision.digest, words, current)


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
