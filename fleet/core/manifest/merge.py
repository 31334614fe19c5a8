"""Several trees to one: overlays, defaults, shorthands, by RFC 7386 (maps merge, all else replaces, null removes).

Patches are composed before they are applied: a null in a later file also removes what ``spec.defaults`` would bring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fleet.core.manifest.tree import Findings, Node, Path
from fleet.core.text.format import shown

# Maps of things that people name. A null in one is there to remove something; if there is nothing, it is a mistake.
NAMED_MAPS = frozenset(
    {"groups", "secrets", "env", "secretEnv", "queues", "dependsOn", "connections", "labels", "annotations"}
)
SCALING = frozenset({"replicas", "share", "autoscale"})
OF_WORKERS_ONLY = frozenset({"app", "worker", "pool", "queues", "task", "logging", "name", "remoteControl"})
OF_COMMANDS_ONLY = frozenset({"command", "capacity", "stop", "job"})
OF_ROLLING_ONLY = frozenset({"maxSurge", "maxUnavailable"})


def merge(target: Node | None, patch: Node) -> Node:
    """One patch onto another. Nulls stay, as there may be more below that they remove."""
    if target is None or not isinstance(patch.value, dict) or patch.whole or patch.broken:
        removes = _removes(target, patch)
        return patch if removes == patch.removes else replace(patch, removes=removes)
    if not isinstance(target.value, dict):
        return patch
    merged = dict(target.value)
    for key, child in patch.value.items():
        merged[key] = merge(merged.get(key), child)
    return replace(patch, value=merged, whole=target.whole)


def _removes(target: Node | None, patch: Node) -> bool:
    return patch.removes or (
        patch.value is None and target is not None and (target.value is not None or target.removes)
    )


def merge_all(trees: Sequence[Node]) -> Node:
    """The trees of all files, left to right."""
    merged = trees[0]
    for tree in trees[1:]:
        merged = merge(merged, tree)
    return merged


def inherit(tree: Node) -> Node:
    """Every group with ``spec.defaults`` beneath it.

    What excludes each other is not mixed: a group that says how it scales takes no other scaling from the defaults, and
    a command takes nothing that only a worker has, and what is recreated takes no bounds of a rolling update.
    """
    defaults, groups = tree.get("spec", "defaults"), tree.get("spec", "groups")
    if defaults is None or groups is None or not defaults.fields() or not groups.fields():
        return tree
    complete = {
        name: merge(_inheritable(defaults, group), group) if isinstance(group.value, dict) else group
        for name, group in groups.fields().items()
    }
    return _put(tree, ("spec", "groups"), replace(groups, value=complete))


def _inheritable(defaults: Node, group: Node) -> Node:
    own = {name for name, child in group.fields().items() if child.value is not None}
    barred: set[str] = set()
    if own & SCALING:
        barred |= SCALING
    if "command" in own:
        barred |= OF_WORKERS_ONLY
    elif own & (OF_WORKERS_ONLY - {"logging", "name", "remoteControl"}):
        barred |= OF_COMMANDS_ONLY
    inherited = {name: child for name, child in defaults.fields().items() if name not in barred}
    strategy = group.get("rollout", "strategy")
    if strategy is not None and strategy.value == "recreate" and "rollout" in inherited:
        rollout = inherited["rollout"]
        kept = {name: child for name, child in rollout.fields().items() if name not in OF_ROLLING_ONLY}
        inherited["rollout"] = replace(rollout, value=kept) if rollout.fields() else rollout
    return replace(defaults, value=inherited)


def _put(tree: Node, path: Sequence[str], node: Node) -> Node:
    if not path:
        return node
    child = tree.fields()[path[0]]
    return replace(tree, value={**tree.fields(), path[0]: _put(child, path[1:], node)})


def strip_nulls(tree: Node, findings: Findings) -> tuple[Node, list[tuple[Path, Node]]]:
    """The tree without its nulls, and where they were. A named thing that is null and removes nothing is a problem."""
    removed: list[tuple[Path, Node]] = []

    def strip(node: Node, path: Path) -> Node:
        if not isinstance(node.value, dict):
            return node
        kept: dict[str, Node] = {}
        for key, child in node.value.items():
            if child.value is not None or child.broken:
                kept[key] = strip(child, (*path, key))
            else:
                removed.append(((*path, key), child))
                _check_null(path, key, child, findings)
        return node.with_value(kept)

    return strip(tree, ()), removed


def _check_null(path: Path, key: str, node: Node, findings: Findings) -> None:
    if node.removes or not path or path[-1] not in NAMED_MAPS:
        return
    empty = '""' if path[-1] in {"env", "labels", "annotations"} else "{}"
    message = f"{shown(key)} has no value: null removes a field, and there is nothing to remove"
    findings.add(node.place, (*path, key), message, f"write `{key}: {empty}` or fill it in")


def expand_shorthands(tree: Node, findings: Findings) -> Node:
    """Words and lists that stand for maps, written out: ``pool: solo``, ``queues: [a]``, ``waitFor: [URL]``."""
    spec = tree.get("spec")
    if spec is None or not spec.fields():
        return tree
    if defaults := spec.get("defaults"):
        tree = _put(tree, ("spec", "defaults"), _expand_group(defaults, ("spec", "defaults"), findings))
    groups = spec.get("groups")
    if groups is not None and groups.fields():
        expanded = {
            name: _expand_group(group, ("spec", "groups", name), findings) for name, group in groups.fields().items()
        }
        tree = _put(tree, ("spec", "groups"), replace(groups, value=expanded))
    return tree


def _expand_group(group: Node, path: Path, findings: Findings) -> Node:
    if not group.fields():
        return group
    fields = dict(group.fields())
    for name, expand in _SHORTHANDS.items():
        if name in fields and not fields[name].broken:
            fields[name] = expand(fields[name], (*path, name), findings)
    job = fields.get("job")
    if job is not None and job.value is True and not fields.keys() & SCALING:
        fields["replicas"] = replace(job, value=1, implied=True)
    return replace(group, value=fields)


def _expand_word(node: Node, _path: Path, _findings: Findings) -> Node:
    if not isinstance(node.value, str):
        return node
    return replace(node, value={"type": replace(node, implied=True)}, whole=True)


def _expand_conditions(node: Node, path: Path, findings: Findings) -> Node:
    """``[a, b]``, and ``{a: completed}`` for ``{a: {condition: completed}}``."""
    if not isinstance(node.value, dict):
        return _expand_list(node, path, findings)
    named = {name: _expand_condition(child) for name, child in node.value.items()}
    return replace(node, value=named)


def _expand_condition(node: Node) -> Node:
    if not isinstance(node.value, str):
        return node
    return replace(node, value={"condition": replace(node, implied=True)}, whole=True)


def _expand_list(node: Node, path: Path, findings: Findings) -> Node:
    if not isinstance(node.value, list):
        return node
    named: dict[str, Node] = {}
    for index, item in enumerate(node.value):
        if item.broken:
            continue
        if not isinstance(item.value, str):
            findings.add(item.at, (*path, index), f"expected a name, not {shown(item.value)}", "write it in quotes")
        elif item.value in named:
            findings.add(item.at, (*path, index), f"{shown(item.value)} is here twice", "remove one")
        else:
            named[item.value] = Node({}, item.at, implied=True)
    broken = any(item.broken or not isinstance(item.value, str) for item in node.value)
    return replace(node, value=named, whole=True, broken=broken)


def _expand_urls(node: Node, _path: Path, _findings: Findings) -> Node:
    if not isinstance(node.value, list):
        return node
    return replace(node, value={"urls": replace(node, implied=True)}, whole=True)


_SHORTHANDS: dict[str, Callable[[Node, Path, Findings], Node]] = {
    "pool": _expand_word,
    "queues": _expand_list,
    "dependsOn": _expand_conditions,
    "waitFor": _expand_urls,
}
