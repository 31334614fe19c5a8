"""Several replicas in one pod: the manifest that `fleet run` in it keeps. PURE."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fleet.backends.kubernetes.names import spec_name
from fleet.core.expand.specs import secret_variable
from fleet.core.spec import WorkerSpec, digest

MANIFEST_FILE = "fleet.json"
_NOT_INSIDE = frozenset(
    {"replicas", "share", "autoscale", "dependsOn", "paused", "rollout", "release", "user", "group", "noNewPrivileges"}
)
"""Fields of a group that the cluster takes care of, or the image."""
_NOT_PLAIN = "[\x7f-\uffff]"
"""Written as escapes. YAML takes none for half of a pair of surrogates, so what is beyond stays as it is."""
_HEALED = ("stopped", "stuck", "missing", "parked")
"""What is healed inside. The rest is the cluster's: it holds replicas before a pod goes, and that is no drift."""


def packed_digest(spec: WorkerSpec, pack: int) -> str:
    """As the digest of a spec, of a pod with ``pack`` replicas of it: another one replaces the pod."""
    return digest(spec) if pack == 1 else f"{digest(spec)}-x{pack}"


def packed_name(spec: WorkerSpec, pack: int) -> str:
    """The ConfigMap of such pods."""
    return spec_name(spec) if pack == 1 else f"{spec_name(spec)}-x{pack}"


def manifest_of_pod(document: Mapping[str, Any], spec: WorkerSpec, pack: int, *, workdir: str) -> str:
    """The manifest of the one group ``spec.group`` with as many replicas as a pod has, as JSON text.

    document: the fleet's, as it was read, its groups complete.  spec: of each replica.  The group is as it is written,
    but for what the cluster does; secrets are variables of the container.
    """
    whole = document["spec"]
    group = whole["groups"][spec.group]
    pool = group.get("pool") or {}
    inside = {key: value for key, value in group.items() if key not in _NOT_INSIDE and value is not None}
    inside |= {
        "replicas": pack,
        "pool": {**({"type": pool} if isinstance(pool, str) else pool), "concurrency": spec.pool.concurrency},
    }
    release = whole.get("release") or {}
    said = whole.get("heal") or {}
    mode = said.get("mode", "enabled")
    made = {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": {"name": spec.fleet},
        "spec": {
            **{key: whole[key] for key in ("app", "broker", "tracing") if whole.get(key) is not None},
            "release": {"workdir": workdir, **{key: release[key] for key in ("revision", "image") if release.get(key)}},
            "metrics": {"tasks": spec.task_counters},
            "heal": {"mode": "off", **{name: said.get(name) or mode for name in _HEALED}},
            "secrets": {name: {"env": secret_variable(name)} for name in sorted(spec.secret_marks())},
            "groups": {spec.group: inside},
        },
    }
    text = json.dumps(_literal(made), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if text.isascii() and "\x7f" not in text:
        return text  # compiling the pattern takes as long as making twenty groups
    return re.sub(_NOT_PLAIN, lambda found: f"\\u{ord(found[0]):04x}", text)


def _literal(value: Any) -> Any:
    """What was filled in before stays as it is: nothing in it is a reference to the pod's environment."""
    if isinstance(value, str):
        return value.replace("${env:", "$${env:")
    if isinstance(value, Mapping):
        return {key: _literal(one) for key, one in value.items()}
    return [_literal(one) for one in value] if isinstance(value, list | tuple) else value
