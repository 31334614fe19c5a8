"""What an apply changes, object by object: values, their differences, the reasons, and who else owns what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleet.backends.kubernetes.kinds import Object, label_of, name_of
from fleet.backends.kubernetes.names import DIGEST
from fleet.core.text.format import counted, shown
from fleet.core.text.mask import holds_secret, masked

SHOWN_FIELDS = 8
_MADE_BY_SERVER = frozenset({"status", "managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"})
_SERVER_ANNOTATIONS = frozenset({"deployment.kubernetes.io/revision"})
_FLUX_LABELS = (
    ("kustomize.toolkit.fluxcd.io/name", "Flux's Kustomization"),
    ("helm.toolkit.fluxcd.io/name", "Flux's HelmRelease"),
)
_ARGO_ANNOTATION = "argocd.argoproj.io/tracking-id"
_TOOLS: Mapping[str, str] = {
    "kustomize-controller": "Flux's kustomize-controller",
    "helm-controller": "Flux's helm-controller",
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
}
_CONFLICT = re.compile(r'conflict with "(?P<manager>[^"]+)"')
_MASK = "********"
_GONE = object()


class Deed(StrEnum):
    """What happens to one object. keep: nothing.  leave: nothing, though it is no longer in the manifest."""

    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"
    KEEP = "keep"
    LEAVE = "leave"


GLYPHS: Mapping[Deed, str] = {Deed.CREATE: "+", Deed.CHANGE: "~", Deed.REMOVE: "-", Deed.KEEP: "=", Deed.LEAVE: "?"}
_STYLES: Mapping[Deed, str] = {Deed.CREATE: "32", Deed.CHANGE: "33", Deed.REMOVE: "31", Deed.KEEP: "2", Deed.LEAVE: "2"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One field. ``before`` or ``after`` is empty where the field is not there."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before or 'nothing'} -> {self.after or 'nothing'}"


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """What happens to one object and why. ``conflicts``: fields of other owners that it would take, with the owner."""

    deed: Deed
    kind: str
    name: str
    reason: str
    group: str = ""
    fields: tuple[Difference, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """``Deployment/shop-mail``."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class ObjectPlan:
    """All objects of a fleet, in the order in which they are changed. ``notes``: sentences for people."""

    fleet: str
    place: str
    objects: tuple[ObjectChange, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[ObjectChange, ...]:
        """Those that something happens to."""
        return tuple(one for one in self.objects if one.deed not in (Deed.KEEP, Deed.LEAVE))

    @property
    def conflicts(self) -> tuple[ObjectChange, ...]:
        """Those that another owner has fields of."""
        return tuple(one for one in self.objects if one.conflicts)

    @property
    def is_empty(self) -> bool:
        return not self.changes

    @property
    def identity(self) -> tuple[str, ...]:
        """Two plans with the same identity do the same."""
        return tuple(f"{one.deed} {one.reference} {one.fields}" for one in self.changes)


# --- differences


def differences(before: Object, after: Object) -> tuple[Difference, ...]:
    """The fields in which two objects differ, without what the server writes by itself."""
    return tuple(_differences("", _comparable(before), _comparable(after)))


def _comparable(one: Object) -> dict[str, Any]:
    metadata = {key: value for key, value in one["metadata"].items() if key not in _MADE_BY_SERVER}
    annotations = metadata.pop("annotations", None) or {}
    kept = {key: value for key, value in annotations.items() if key not in _SERVER_ANNOTATIONS}
    whole = {key: value for key, value in one.items() if key not in _MADE_BY_SERVER}
    return {**whole, "metadata": {**metadata, **({"annotations": kept} if kept else {})}}


def _differences(path: str, before: Any, after: Any) -> Iterator[Difference]:
    before, after = _as_map(before), _as_map(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            where = f"{path}.{key}" if path else str(key)
            yield from _differences(where, before.get(key, _GONE), after.get(key, _GONE))
    elif before != after:
        yield Difference(path, _text(path, before), _text(path, after))


def _as_map(value: Any) -> Any:
    """Lists whose items have names as maps, and JSON in a text as what it says, so that only what differs is shown."""
    if isinstance(value, str) and value.startswith("{") and value.endswith("}\n"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list) and value:
        if all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in value):
            found = {one["name"]: one for one in value}
        elif all(isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in value):
            found = {one[0]: one[1] for one in value}
        else:
            return value
        return found if len(found) == len(value) else value
    return value


def _text(path: str, value: Any) -> str:
    if value is _GONE:
        return ""
    name = path.rpartition(".")[2]
    if isinstance(value, str):
        return _MASK if holds_secret(name, value) else masked(shown(value))
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return masked(text if len(text) <= 60 else f"{text[:57]}…")


def reason_of(kind: str, fields: Sequence[Difference]) -> str:
    """Why an object changes, in a few words."""
    paths = [one.path for one in fields]
    if kind == "Deployment":
        if any(path.startswith("spec.template") for path in paths):
            spec = any(path.endswith(DIGEST) for path in paths)
            return "other workers: the pods are replaced" if spec else "the pods are replaced"
        if scaled := next((one for one in fields if one.path == "spec.replicas"), None):
            if not scaled.after:
                return "KEDA says from now on how many pods there are"
            return f"scale {scaled.before or 'by KEDA'} -> {scaled.after}"
    if kind == "ConfigMap":
        return "settings that running workers apply"
    if kind == "ScaledObject":
        return "how it scales"
    return "differs from the manifest"


# --- who owns what


def gitops_owner(live: Object) -> str:
    """Flux or Argo CD, in words, where an object is kept by it; else empty."""
    for label, words in _FLUX_LABELS:
        if name := label_of(live, label):
            return f"{words} {name!r}"
    tracking = str((live["metadata"].get("annotations") or {}).get(_ARGO_ANNOTATION) or "")
    if tracking:
        return f"Argo CD's application {tracking.partition(':')[0]!r}"
    return next((_TOOLS[name] for name in managers_of(live) if name in _TOOLS), "")


def managers_of(live: Object) -> list[str]:
    """Who has written fields of an object."""
    return [str(one.get("manager") or "") for one in live["metadata"].get("managedFields") or ()]


def owns(live: Object, manager: str, path: Sequence[str]) -> bool:
    """Whether a field manager owns a field; ``path``: names of maps, from the top."""
    for entry in live["metadata"].get("managedFields") or ():
        inner: Any = entry.get("fieldsV1") if entry.get("manager") == manager else None
        for name in path:
            inner = inner.get(f"f:{name}") if isinstance(inner, dict) else None
        if inner is not None:
            return True
    return False


def conflicts_of(details: Mapping[str, Any]) -> tuple[str, ...]:
    """``spec.replicas is kubectl's``, for each cause of a refused apply."""
    found = []
    for cause in details.get("causes") or ():
        manager = _CONFLICT.search(str(cause.get("message") or ""))
        found.append(f"{str(cause.get('field') or '').lstrip('.')} is {manager['manager'] if manager else 'another'}'s")
    return tuple(sorted(set(found)))


# --- for people and for scripts


def text(plan: ObjectPlan, *, verbose: bool = False, colour: bool = False) -> str:
    """A line per object with its reason, and one per field; then notes and a summary."""
    shown_deeds = [one for one in plan.objects if verbose or one.deed is not Deed.KEEP or one.conflicts]
    width = max((len(one.reference) for one in shown_deeds), default=0)
    lines = [line for one in shown_deeds for line in _lines(one, width, verbose=verbose, colour=colour)]
    blocks = ["\n".join(lines), "\n".join(f"note: {note}" for note in plan.notes), _last_line(plan)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _lines(one: ObjectChange, width: int, *, verbose: bool, colour: bool) -> Iterator[str]:
    head = f"{GLYPHS[one.deed]} {one.reference:<{width}}  {one.deed:<6}  {one.reason}"
    yield f"\033[{_STYLES[one.deed]}m{head}\033[0m" if colour else head
    fields = one.fields if verbose else one.fields[:SHOWN_FIELDS]
    yield from (f"    {field}" for field in fields)
    if len(fields) < len(one.fields):
        yield f"    … {len(one.fields) - len(fields)} more; -v shows all"
    yield from (f"    conflict: {conflict}" for conflict in one.conflicts)


def _last_line(plan: ObjectPlan) -> str:
    counts = summary(plan.objects)
    words = [f"{counts[deed]} to {deed}" for deed in (Deed.CREATE, Deed.CHANGE, Deed.REMOVE)]
    words += [f"{counts[Deed.KEEP]} untouched"]
    words += [f"{counts[Deed.LEAVE]} left, not in the manifest"] if counts[Deed.LEAVE] else []
    return f"fleet {plan.fleet} in {plan.place}: {counted(len(plan.objects), 'object')}: {', '.join(words)}"


def summary(objects: Iterable[ObjectChange]) -> dict[str, int]:
    """How many objects there are of each deed."""
    deeds = [one.deed for one in objects]
    return {str(deed): deeds.count(deed) for deed in Deed}


def document(plan: ObjectPlan) -> dict[str, Any]:
    """The plan for scripts; what is kept is only counted."""
    return {
        "fleet": plan.fleet,
        "place": plan.place,
        "summary": summary(plan.objects),
        "objects": [
            {
                "action": str(one.deed),
                "kind": one.kind,
                "name": one.name,
                "group": one.group,
                "reason": one.reason,
                "fields": [{"path": field.path, "before": field.before, "after": field.after} for field in one.fields],
                "conflicts": list(one.conflicts),
            }
            for one in plan.objects
            if one.deed is not Deed.KEEP or one.conflicts
        ],
        "notes": list(plan.notes),
    }


def change_of(deed: Deed, one: Object, *, reason: str, **more: Any) -> ObjectChange:
    """The change of an object; its group by its label."""
    return ObjectChange(deed, one["kind"], name_of(one), reason, _group_of(one), **more)


def _group_of(one: Object) -> str:
    return label_of(one, "app.kubernetes.io/name")
