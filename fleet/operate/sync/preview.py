"""What a merge would do: the manifest at two revisions of the checkout around it, and the plan between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.core.manifest import parse
from fleet.core.manifest.models import Manifest
from fleet.core.plan import Action, Plan
from fleet.core.planning.plan_text import text
from fleet.errors import UsageError
from fleet.operate.sync import offline
from fleet.operate.sync.git import Repository
from fleet.operate.sync.releases import key_of
from fleet.operate.sync.revisions import texts_of

MOST_ROWS = 200


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan between two revisions, named as they were given. ``merged``: head is what a merge would give."""

    plan: Plan
    base: str
    head: str
    merged: bool = False


def preview(paths: Sequence[str], *, base: str, head: str, prune: bool, environ: Mapping[str, str]) -> Preview:
    """Compare the manifest at two revisions. Raises UsageError, ManifestError, or GitError for a conflict."""
    repository, root = around(Path(paths[0]).absolute().parent)
    inside = [_inside(path, root) for path in paths]
    before, after = (_resolved(repository, name) for name in (base, head))
    merged = not repository.is_ancestor(before, after)
    tree = repository.merged_tree(before, after, names=(base, head)) if merged else after
    old = _manifest(repository, before, inside, environ, missing_is_fine=True)
    new = _manifest(repository, tree, inside, environ)
    return Preview(offline.change(old, new, prune=prune), base, head, merged)


def around(folder: Path) -> tuple[Repository, Path]:
    """The repository that a folder lies in, and the top of its checkout. Raises UsageError."""
    for place in (folder, *folder.parents):
        git = place / ".git"
        if git.is_dir():
            return Repository(git), place
        if git.is_file():
            named = git.read_text().removeprefix("gitdir:").strip()
            return Repository((place / named).resolve()), place
    raise UsageError(f"{folder} lies in no git checkout", hint="--base and --head name revisions of one")


def _inside(path: str, root: Path) -> str:
    whole = Path(os.path.abspath(path))
    if not whole.is_relative_to(root):
        raise UsageError(f"{path} lies outside the checkout {root}")
    return whole.relative_to(root).as_posix()


def _resolved(repository: Repository, name: str) -> str:
    commit = repository.resolve(name)
    if not commit:
        hint = "a shallow clone may lack it: in CI fetch the whole history, and name it as origin/main"
        raise UsageError(f"there is no revision {name!r} in this checkout", hint=hint)
    return commit


def _manifest(
    repository: Repository,
    tree: str,
    paths: list[str],
    environ: Mapping[str, str],
    *,
    missing_is_fine: bool = False,
) -> Manifest | None:
    if missing_is_fine and not any(entry.path in paths for entry in repository.tree(tree)):
        return None
    sources = [parse.Source(name, data) for name, data in texts_of(repository, tree, paths)]
    manifest = parse.parse(sources, environ=environ).manifest
    asked = manifest.spec.release.source
    if asked is None:
        return manifest
    release = manifest.spec.release.model_copy(update={"revision": key_of(asked, repository.tree(tree))})
    return manifest.model_copy(update={"spec": manifest.spec.model_copy(update={"release": release})})


def markdown(shown: Preview) -> str:
    """For a comment on a pull request."""
    plan = shown.plan
    what = f"`{shown.head}` merged into `{shown.base}`" if shown.merged else f"`{shown.base}` to `{shown.head}`"
    lines = [f"### fleet plan: {plan.fleet}, {what}", ""]
    if plan.changes:
        lines += ["| replica | action | reason |", "|---|---|---|"]
        lines += [_row(step.replica, step.action, step.reason) for step in plan.changes[:MOST_ROWS]]
        if len(plan.changes) > MOST_ROWS:
            lines.append(f"| … | | and {len(plan.changes) - MOST_ROWS} more |")
        lines.append("")
    _, _, rest = text(plan).rpartition("\n\n")
    lines += [*(f"> {note}" for note in plan.notes), *rest.strip().splitlines()]
    return "\n".join(lines) + "\n"


def _row(replica: str, action: Action, reason: str) -> str:
    cell = " ".join(reason.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return f"| {replica} | {action} | {cell} |"
