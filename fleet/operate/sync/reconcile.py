"""The one place where sync meets the rest of fleet: a manifest is read, planned and applied by the same pipeline as
``fleet apply``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet import settings
from fleet.core.desired import RESERVED_PREFIX, group_of
from fleet.core.manifest import parse
from fleet.core.manifest.models import Release as WrittenRelease
from fleet.core.planning import budget, plan_text
from fleet.core.planning.selection import leaving
from fleet.core.text.format import duration, listed
from fleet.errors import ManifestError, Problem, Refused
from fleet.inputs import machine
from fleet.inputs.manifest import LoadedManifest
from fleet.operate.apply.effects import is_ready
from fleet.operate.apply.events import STARTS_PER_CORE, Listener, WalkOptions
from fleet.operate.change import carry_out
from fleet.operate.local_fleet import LocalFleet, PlannedChange
from fleet.operate.sync import offline, ownership
from fleet.operate.sync.releases import Release
from fleet.state.revisions import Origin

VERB = "sync"


@dataclass(frozen=True, slots=True)
class Look:
    """A plan, and the manifest that it comes from."""

    loaded: LoadedManifest
    change: PlannedChange

    @property
    def summary(self) -> str:
        """The plan in a line."""
        return plan_text.text(self.change.plan).strip().splitlines()[-1] if self.is_empty else _summary(self.change)

    @property
    def is_empty(self) -> bool:
        """Nothing to do."""
        return self.change.plan.is_empty

    @property
    def differs(self) -> str:
        """The steps on groups that the controller does not move anyway, as a text; empty for none."""
        groups = self.change.desired.groups
        moved = {name for name, group in groups.items() if group.scaling == "autoscale"}
        steps = [step for step in self.change.plan.changes if group_of(step.replica) not in moved]
        return ", ".join(sorted(step.id for step in steps))

    @property
    def not_ready(self) -> str:
        """Replicas that are as wanted and do not work, as a text; empty for none."""
        seen = self.change.observed.replicas.values()
        late = sorted(one.name for one in seen if one.group in self.change.desired.groups and not is_ready(one, ""))
        return listed(late, most=5)

    def document(self) -> dict[str, Any]:
        """As ``plan -o json``."""
        return plan_text.document(self.change.plan)

    def text(self) -> str:
        """As ``plan``."""
        return plan_text.text(self.change.plan)


def _summary(change: PlannedChange) -> str:
    counts = plan_text.summary(change.plan)
    return ", ".join(f"{count} to {name}" for name, count in counts.items() if count and name != "keep")


def read(
    texts: Sequence[tuple[str, bytes]], *, base: str, address: str, commit: str, branch: str, environ: Mapping[str, str]
) -> LoadedManifest:
    """The manifest that files of a commit make together, sums checked. Raises ManifestError with every problem."""
    sources = [parse.Source(name, text) for name, text in texts]
    variables = {**environ, "FLEET_COMMIT": commit, "FLEET_REF": branch}
    parsed = parse.parse(sources, environ=variables)
    git = {"sha": commit, **({"branch": branch} if branch else {})}
    origin = Origin(base, tuple(f"{address}//{name}" for name, _ in texts), git)
    try:
        offline.check_sums(parsed.manifest, cpus=machine.cpus())
    except Refused as error:
        problem = parsed.positions.problem(("spec", "concurrency"), error.message, error.hint)
        raise ManifestError([problem]) from error
    return LoadedManifest(parsed.manifest, parsed.document, origin, parsed.warnings, positions=parsed.positions)


def with_release(loaded: LoadedManifest, release: Release) -> LoadedManifest:
    """The manifest with the release it asks for in the place of ``release.source``."""
    written = {"workdir": str(release.workdir), "python": str(release.python), "revision": release.key}
    spec = loaded.manifest.spec.model_copy(update={"release": WrittenRelease.model_validate(written)})
    manifest = loaded.manifest.model_copy(update={"spec": spec})
    document = {**loaded.document, "spec": {**loaded.document["spec"], "release": written}}
    return replace(loaded, manifest=manifest, document=document)


def problem_documents(problems: Sequence[Problem]) -> tuple[dict[str, Any], ...]:
    """As ``validate -o json`` has them."""
    return tuple({name: getattr(one, name) for name in Problem.__slots__} for one in problems)


class LocalTarget:
    """The fleet on this host that a source keeps."""

    def __init__(self, *, open_fleet: Callable[[str], LocalFleet] | None = None) -> None:
        self._open = open_fleet or (lambda name: LocalFleet(name, settings=settings.load()))

    def check_owner(self, fleet: str, claimant: ownership.Owner, *, adopt: bool) -> None:
        """Raise Refused where the fleet is another's and is not taken over."""
        local = self._open(fleet)
        if not adopt:
            ownership.refuse_other(fleet, ownership.owner_of(local), claimant)

    def look(self, loaded: LoadedManifest, *, prune: bool) -> Look:
        """Observe and plan; nothing is changed."""
        local = self._open(loaded.name)
        desired, secrets = local.desired_of(loaded)
        return Look(loaded, local.planned(desired, secrets, manifest=loaded, prune=prune))

    def apply(
        self,
        loaded: LoadedManifest,
        claimant: ownership.Owner,
        *,
        prune: bool,
        adopt: bool = False,
        max_destroy: str = "",
        reason: str = "",
        timeout_seconds: float,
        interrupted: Callable[[], int],
        before: Callable[[Look], None] = lambda _look: None,
        on_event: Listener | None = None,
    ) -> int:
        """Plan again with the lock held, guard, carry out; the revision. ``before`` hears the plan that is carried out.

        Raises whatever ``fleet apply`` would end with.
        """
        local = self._open(loaded.name)
        with local.lock(command=f"fleet sync ({claimant.name})"):
            if not adopt:
                ownership.refuse_other(loaded.name, ownership.owner_of(local), claimant)
            look = self.look(loaded, prune=prune)
            guard(look.change, max_destroy)
            _refuse_too_long(look.change, timeout_seconds)
            before(look)
            ownership.make_owner(local, claimant)
            starts = STARTS_PER_CORE * machine.cpus()
            options = WalkOptions(timeout_seconds, starts_at_once=starts, interrupted=interrupted)
            carry_out(local, look.change, verb=VERB, reason=reason, on_event=on_event, options=options)
            applied = local.applied()
            return applied.revision if applied is not None else 0

    def write_audit(self, fleet: str, entry: Mapping[str, Any]) -> None:
        """A line in the fleet's audit, where the fleet exists."""
        local = self._open(fleet)
        if local.places.state.is_dir():
            local.audit.write(entry)


def guard(change: PlannedChange, max_destroy: str) -> None:
    """Raise Refused for what breaks a budget or removes more replicas than is allowed."""
    budget.check(change.desired, change.plan, change.observed)
    if not max_destroy:
        return
    gone = leaving(change.plan)
    present = [one for one in change.observed.replicas.values() if not one.group.startswith(RESERVED_PREFIX)]
    allowed = allowed_to_leave(max_destroy, len(present))
    if len(gone) > allowed:
        raise Refused(
            f"the plan removes {len(gone)} of {len(present)} replicas, and maxDestroy allows {allowed}",
            hint="if it is meant: remove them in several commits, raise maxDestroy, or apply it by hand with --suspend",
        )


def _refuse_too_long(change: PlannedChange, timeout_seconds: float) -> None:
    """A rollout that may outlast its own timeout would be given up half done."""
    worst = change.plan.worst_case_seconds
    if worst > timeout_seconds:
        raise Refused(
            f"the rollout may take {duration(worst)}, and spec.timeout allows {duration(timeout_seconds)}",
            hint="raise timeout in the source, or lower drain.timeout and health.readyTimeout in the manifest",
        )


def allowed_to_leave(limit: str, present: int) -> int:
    """``3`` or ``30%`` of the replicas there are."""
    number = int(limit.removesuffix("%"))
    return present * number // 100 if limit.endswith("%") else number


def environment() -> Mapping[str, str]:
    """What ``${env:…}`` in manifests is filled in from."""
    return os.environ
