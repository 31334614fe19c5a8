"""The second loop: bring the fleet to the newest revision that holds, and put right what differs from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from fleet.errors import FleetError, Interrupted, LockHeld, NotReady, Refused, RolloutFailed
from fleet.inputs.manifest import LoadedManifest
from fleet.operate.sync import ownership
from fleet.operate.sync.conditions import Condition, Stage, State
from fleet.operate.sync.definition import Definition
from fleet.operate.sync.fetching import Fetching
from fleet.operate.sync.models import FleetSource
from fleet.operate.sync.orders import suspension_by_hand
from fleet.operate.sync.reconcile import LocalTarget, Look
from fleet.operate.sync.revisions import Revisions
from fleet.operate.sync.source import moment, openings_of
from fleet.operate.sync.state import (
    Fetched,
    Orders,
    Reconciled,
    SourcePlaces,
    read_fetched,
    read_orders,
    read_reconciled,
    write,
)
from fleet.operate.sync.verdict import Situation, Verdict, at, decide
from fleet.operate.sync.watcher import NOBODY, Watcher
from fleet.operate.sync.windows import next_opening, open_until

APPLIED = "refs/fleet/applied"
BASE = "refs/fleet/base"


class Following:
    """Both loops of one source, one look at a time; each look leaves everything that matters on the disk."""

    def __init__(
        self,
        definition: Definition,
        places: SourcePlaces,
        *,
        target: LocalTarget,
        now: Callable[[], float],
        adopt: bool = False,
        watcher: Watcher = NOBODY,
    ) -> None:
        self.definition = definition
        self.source = definition.source
        self.places = places
        self.target = target
        self.revisions = Revisions(self.source, places)
        self.fetching = Fetching(
            self.source,
            places,
            revisions=self.revisions,
            access=definition.access,
            now=now,
            doing=partial(watcher.on_stage, "repository"),
        )
        self.owner = ownership.of_source(self.source.name, self.fetching.mark)
        self._now = now
        self._adopt = adopt
        self.watcher = watcher
        self._doing = partial(watcher.on_stage, "fleet")

    # --- a look

    def fetch(self) -> Fetched:
        """One look at the repository; the fleet's audit learns what was refused, once."""
        before = read_fetched(self.places)
        try:
            after = self.fetching.look()
        finally:
            self.watcher.on_stage("repository", "")
        for one in after.conditions.all():
            if one.state == "False" and before.conditions.get(one.stage).message != one.message and after.fleet:
                reason = f"{one.stage}: {one.reason}: {_first(one.message)}"
                self.target.write_audit(after.fleet, self._entry("sync.failed", one.revision, reason))
        return after

    def look(self, *, interrupted: Callable[[], int] = lambda: 0) -> Reconciled:
        """One look at the fleet; what is known then is on the disk. Raises Interrupted only."""
        try:
            return self._look(interrupted)
        finally:
            self.watcher.on_stage("fleet", "")

    def _look(self, interrupted: Callable[[], int]) -> Reconciled:
        state, fetched, orders = read_reconciled(self.places), read_fetched(self.places), read_orders(self.places)
        verdict = decide(self._situation(fetched, state, orders))
        try:
            state = self._act(verdict, state, fetched, interrupted)
        except Interrupted:
            raise
        except FleetError as error:  # before any plan: the manifest, a secret, an app
            state = read_reconciled(self.places)
            state = self._failed(state, "Planned", error, verdict.deploy or verdict.preview or verdict.heal or "")
        state = replace(state, looked_at=self._now())
        write(self.places.reconciled, state)
        in_use = (state.applied, state.base, fetched.good)
        self.revisions.tidy(in_use, reached=(state.attempted, fetched.seen))
        return state

    def _act(self, verdict: Verdict, state: Reconciled, fetched: Fetched, interrupted: Callable[[], int]) -> Reconciled:
        if verdict.deploy:
            return self._deploy(verdict.deploy, state, fetched, interrupted)
        failures = state.failures
        if verdict.preview and verdict.preview != state.previewed:
            state = self._preview(verdict.preview, state)
        if kept := verdict.heal or verdict.watch:
            state = self._keep(kept, state, interrupted, may_change=bool(verdict.heal))
        if verdict.reason and not (verdict.reason == "RolloutFailed" and not state.applied):
            state = self._waits(verdict, state)
        return state if state.failures > failures else replace(state, failures=0)

    def _situation(self, fetched: Fetched, state: Reconciled, orders: Orders) -> Situation:
        spec, now = self.source.spec, self._now()
        openings = openings_of(spec) if spec.apply == "window" else ()
        return Situation(
            good=fetched.good,
            applied=state.applied,
            failed=state.failed,
            is_paused=state.is_paused,
            approved=orders.approved,
            mode=spec.apply,
            heal=spec.self_heal.mode,
            suspended=suspension(self.source, orders, now),
            window_closes=open_until(openings, now),
            window_opens=next_opening(openings, now),
        )

    def _waits(self, verdict: Verdict, state: Reconciled) -> Reconciled:
        """Why the newest revision is not what runs: in Ready, unless that says something worse of the fleet itself."""
        ready = state.conditions.get("Ready")
        if ready.state == "False" and verdict.reason == "RolloutFailed":
            return state
        value: State = "False" if verdict.reason == "RolloutPaused" else "Unknown"
        return self._said(state, "Ready", value, verdict.reason, verdict.message, verdict.preview or state.applied)

    # --- deploy, preview, keep

    def _manifest(self, commit: str, base: str) -> LoadedManifest:
        """Read, and from then on it is planned."""
        loaded = self.revisions.manifest(commit, base=base, doing=self._doing)
        self._doing(f"planning {commit[:12]}")
        return loaded

    def _take_approval(self, commit: str) -> None:
        """An approval is good for one attempt."""
        orders = read_orders(self.places)
        if orders.approved == commit:
            write(self.places.orders, replace(orders, approved="", approved_by=""))

    def _preview(self, commit: str, state: Reconciled) -> Reconciled:
        loaded = self._manifest(commit, self.revisions.base_for(commit, state.base))
        look = self.target.look(loaded, prune=self.source.spec.prune)
        state = self._planned(replace(state, previewed=commit, fleet=loaded.name), commit, look)
        self.target.write_audit(loaded.name, self._entry("sync.planned", commit, look.summary))
        return state

    def _deploy(self, commit: str, state: Reconciled, fetched: Fetched, interrupted: Callable[[], int]) -> Reconciled:
        base = self.revisions.base_for(commit, state.base)
        loaded = self._manifest(commit, base)
        self.revisions.repository.keep(APPLIED, commit)
        self.revisions.repository.keep(BASE, base)
        state = replace(state, attempted=commit, fleet=loaded.name, failed="", is_paused=False)
        write(self.places.reconciled, state)
        self._take_approval(commit)

        def begun(look: Look) -> None:
            nonlocal state
            state = self._planned(state, commit, look)
            state = self._said(state, "Applying", "True", "Progressing", look.summary, commit)
            self._doing(f"applying {commit[:12]}")
            write(self.places.reconciled, state)

        spec = self.source.spec
        try:
            revision = self.target.apply(
                loaded,
                self.owner,
                prune=spec.prune,
                adopt=self._adopt,
                max_destroy=spec.max_destroy or "",
                reason=f"commit {commit[:12]}: {fetched.subject}",
                timeout_seconds=spec.timeout,
                interrupted=interrupted,
                before=begun,
                on_event=self.watcher.on_event,
            )
        except Interrupted:
            write(self.places.reconciled, self._said(state, "Applying", "Unknown", "Interrupted", "", commit))
            raise
        except FleetError as error:
            applying = state.conditions.get("Applying")
            has_begun = applying.revision == commit and applying.reason == "Progressing"
            return self._failed(state, "Applying" if has_begun else "Planned", error, commit)
        self._adopt = False
        self.target.write_audit(loaded.name, self._entry("sync.applied", commit, fetched.subject))
        state = self._said(state, "Applying", "True", "Applied", f"revision {revision}", commit)
        state = self._said(state, "Ready", "True", "Ready", f"the fleet is at {commit[:12]}", commit)
        return replace(state, applied=commit, applied_at=self._now(), base=base, revision=revision, failures=0)

    def _keep(self, commit: str, state: Reconciled, interrupted: Callable[[], int], *, may_change: bool) -> Reconciled:
        """Compare the fleet with what was applied, and put it right where that is allowed."""
        loaded = self._manifest(commit, state.base)
        self.target.check_owner(loaded.name, self.owner, adopt=False)
        look = self.target.look(loaded, prune=self.source.spec.prune)
        differs = look.differs
        if not differs and look.not_ready:
            message = f"as {commit[:12]} says, and not ready: {look.not_ready}"
            return self._said(state, "Ready", "False", "NotReady", message, commit)
        if not differs:
            return self._said(state, "Ready", "True", "Ready", f"the fleet is at {commit[:12]}", commit)
        now = self._now()
        if not may_change:
            return self._said(state, "Ready", "False", "Drifted", f"not as {commit[:12]} says: {look.summary}", commit)
        if not state.heals.may(differs, now):
            message = f"the same repair was made three times within ten minutes; somebody undoes it: {look.summary}"
            return self._said(state, "Ready", "False", "Parked", message, commit)
        state = replace(state, heals=state.heals.made(differs, now))
        write(self.places.reconciled, state)
        spec = self.source.spec
        try:
            self.target.apply(
                loaded,
                self.owner,
                prune=spec.prune,
                max_destroy=spec.max_destroy or "",
                reason=f"heal: as commit {commit[:12]} says",
                timeout_seconds=spec.timeout,
                interrupted=interrupted,
                before=lambda _look: self._doing(f"healing to {commit[:12]}"),
                on_event=self.watcher.on_event,
            )
        except Interrupted:
            raise
        except FleetError as error:
            return self._failed(state, "Ready", error, commit)
        self.target.write_audit(loaded.name, self._entry("sync.healed", commit, look.summary))
        return self._said(state, "Ready", "True", "Healed", f"put right: {look.summary}", commit)

    # --- what is said of it

    def _planned(self, state: Reconciled, commit: str, look: Look) -> Reconciled:
        state = replace(state, plan=look.document(), plan_text=look.text())
        return self._said(state, "Planned", "True", "Planned", look.summary, commit)

    def _said(
        self, state: Reconciled, stage: Stage, value: State, reason: str, message: str, commit: str
    ) -> Reconciled:
        new = Condition(stage, value, reason, message, commit, self._now())
        return replace(state, conditions=state.conditions.with_(new))

    def _failed(self, state: Reconciled, stage: Stage, error: FleetError, commit: str) -> Reconciled:
        """Note a failure. A rollout that failed is not tried again unchanged; everything else is."""
        message = error.message + (f"\n  hint: {error.hint}" if error.hint else "")
        reason = reason_of(error)
        is_news = state.conditions.get(stage).message != message
        state = self._said(state, stage, "False", reason, message, commit)
        if stage == "Applying":
            state = self._said(state, "Ready", "False", reason, message, commit)
        if isinstance(error, RolloutFailed) and commit != state.applied:
            state = replace(state, failed=commit, is_paused=error.exit_code != 5)
        if state.fleet and is_news and not isinstance(error, LockHeld):
            self.target.write_audit(state.fleet, self._entry("sync.failed", commit, error.message.splitlines()[0]))
        return replace(state, failures=state.failures + 1)

    def _entry(self, event: str, commit: str, message: str) -> dict[str, str]:
        return {"event": event, "source": self.source.name, "commit": commit, "reason": message}


def _first(message: str) -> str:
    return message.strip().partition("\n")[0]


def reason_of(error: FleetError) -> str:
    """One word for a failure."""
    if isinstance(error, RolloutFailed):
        return "RolledBack" if error.exit_code == 5 else "RolloutFailed"
    if isinstance(error, NotReady | LockHeld | Refused):
        return type(error).__name__
    return "Failed"


def suspension(source: FleetSource, orders: Orders, now: float) -> str:
    """Until when hands are off and why, empty when they are not."""
    said = source.spec.suspend
    if said is not None and now < moment(said.until):
        return f"suspended until {at(moment(said.until))} by the source itself: {said.reason}"
    return suspension_by_hand(orders, now)
