"""The first loop: fetch, verify, validate. It changes no fleet; what it leaves is the newest revision that holds."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet.errors import FleetError, ManifestError, Problem
from fleet.operate.sync import git, refs
from fleet.operate.sync.conditions import Condition, Stage
from fleet.operate.sync.definition import Access
from fleet.operate.sync.models import FleetSource
from fleet.operate.sync.reconcile import problem_documents
from fleet.operate.sync.revisions import Revisions
from fleet.operate.sync.source import follows_of, remote_of
from fleet.operate.sync.state import Fetched, SourcePlaces, read_fetched, read_orders, write
from fleet.operate.sync.watcher import Doing, unheard

HEAD = "refs/fleet/head"
TAG = "refs/fleet/tag"
ACCEPTED = "refs/fleet/accepted"
GOOD = "refs/fleet/good"


class Stopped(Exception):
    """A stage was not reached; what is wrong is in the condition."""

    def __init__(
        self, stage: Stage, reason: str, error: FleetError, problems: tuple[Mapping[str, Any], ...] = ()
    ) -> None:
        super().__init__(error.message)
        self.stage = stage
        self.reason = reason
        self.error = error
        self.problems = problems


class Fetching:
    """The loop of one source."""

    def __init__(
        self,
        source: FleetSource,
        places: SourcePlaces,
        *,
        revisions: Revisions,
        access: Callable[[], Access],
        now: Callable[[], float],
        doing: Doing = unheard,
    ) -> None:
        self.source = source
        self.places = places
        self.follows = follows_of(source.spec.git)
        self.remote = remote_of(source.spec.git)
        self.revisions = revisions
        self.repository = revisions.repository
        self._access = access
        self._now = now
        self._doing = doing

    @property
    def mark(self) -> str:
        """What is followed; the history of something else is no history of this."""
        return f"{self.source.spec.git.url} {self.follows}"

    def look(self) -> Fetched:
        """One look; what is known then is on the disk."""
        state = read_fetched(self.places)
        if state.follows != self.mark:
            state = Fetched(follows=self.mark, good=state.good, fleet=state.fleet)
        now = self._now()
        try:
            state = replace(self._stages(state), failures=0)
        except _Progress as stop:
            stopped = stop.cause
            failures = state.failures + 1 if stopped.stage == "Fetched" else 0
            state = replace(stop.state, failures=failures, problems=stopped.problems)
            message = stopped.error.message + (f"\n  hint: {stopped.error.hint}" if stopped.error.hint else "")
            new = Condition(stopped.stage, "False", stopped.reason, message, state.seen, now)
            state = replace(state, conditions=state.conditions.with_(new))
        state = replace(state, looked_at=now)
        write(self.places.fetched, state)
        return state

    def _stages(self, state: Fetched) -> Fetched:
        at = state
        try:
            self._doing(f"fetching {self.follows}")
            choice = self._fetch()
            at = replace(at, seen=choice.commit, subject=self.repository.subject(choice.commit))
            at = self._done(at, "Fetched", f"{self.follows} is at {choice.commit}")
            self._check_history(at, choice)
            signer = self._verify(choice)
            self.repository.keep(ACCEPTED, choice.commit)
            told = f"signed by {signer}" if signer else "no signature is asked for"
            at = self._done(replace(at, accepted=choice.commit, signer=signer), "Verified", told)
            fleet = self._validate(at, choice)
            self.repository.keep(GOOD, choice.commit)
            at = replace(at, good=choice.commit, fleet=fleet, problems=())
            return self._done(at, "Valid", f"fleet {fleet} as {', '.join(self.source.spec.git.paths)} have it")
        except Stopped as cause:
            raise _Progress(at, cause) from cause

    def _done(self, state: Fetched, stage: Stage, message: str) -> Fetched:
        new = Condition(stage, "True", "Succeeded", message, state.seen, self._now())
        return replace(state, conditions=state.conditions.with_(new))

    # --- fetch

    def _fetch(self) -> refs.Choice:
        try:
            access = self._access().remote
            if self.follows.kind == "commit":
                choice = self._fetch_commit(access)
            else:
                choice = refs.choose(self.follows, self.repository.remote_refs(self.remote, access))
                target = TAG if choice.tag else HEAD
                self.repository.fetch(self.remote, access, f"+{choice.name}:{target}")
                choice = replace(choice, commit=self.repository.resolve(target))
            self.repository.check_size()
        except FleetError as error:
            raise Stopped("Fetched", type(error).__name__, error) from error
        if not choice.commit:
            raise Stopped("Fetched", "NoSuchRef", refs.NoSuchRef(f"{self.follows} leads to no commit"))
        return choice

    def _fetch_commit(self, access: git.Access) -> refs.Choice:
        commit = self.follows.value
        if not self.repository.resolve(commit):
            self.repository.fetch(
                self.remote, access, "+refs/heads/*:refs/fleet/heads/*", "+refs/tags/*:refs/fleet/tags/*"
            )
        if self.repository.resolve(commit) != commit:
            raise refs.NoSuchRef(f"there is no commit {commit} in any branch or tag")
        return refs.Choice("", commit)

    def _check_history(self, state: Fetched, choice: refs.Choice) -> None:
        """The history must go on: whoever can rewrite it could take the fleet back to an old hole."""
        old = state.accepted
        if self.source.spec.git.allow_force_push or not old or old == choice.commit:
            return
        if read_orders(self.places).accepted == choice.commit:
            return
        try:
            goes_on = bool(self.repository.resolve(old)) and self.repository.is_ancestor(old, choice.commit)
        except FleetError as error:
            raise Stopped("Fetched", type(error).__name__, error) from error
        if not goes_on:
            message = (
                f"{self.follows} was rewritten: {choice.commit[:12]} does not go on from {old[:12]}, the last one that"
                " was accepted"
            )
            hint = f"push a commit on top of {old[:12]}; or accept what is there: fleet sync accept {self.source.name}"
            raise Stopped("Verified", "HistoryRewritten", FleetError(message, hint=hint))

    # --- verify

    def _verify(self, choice: refs.Choice) -> str:
        verify = self.source.spec.git.verify
        if verify is None:
            return ""
        self._doing(f"verifying {choice.commit[:12]}")
        try:
            access = self._access()
            home = self._gpg_home(access.gpg_keys) if access.gpg_keys else ""
            keys = git.Keys(access.allowed_signers, home)
            signers = []
            if verify.mode in ("Tag", "TagAndHEAD"):
                signers.append(self.repository.verify_tag(TAG, keys))
            if verify.mode in ("HEAD", "TagAndHEAD"):
                signers.append(self.repository.verify_commit(choice.commit, keys))
            return ", ".join(dict.fromkeys(signers))
        except FleetError as error:
            what = f"tag {choice.tag}" if verify.mode == "Tag" else f"commit {choice.commit[:12]}"
            told = FleetError(
                f"{what} carries no good signature of an allowed key ({error.message})",
                hint="sign it with an allowed key; the last verified revision stays in force",
            )
            raise Stopped("Verified", "NotSigned", told) from error

    def _gpg_home(self, keys: str) -> str:
        """A home with exactly the keys of the file as it is now."""
        try:
            mark = hashlib.sha256(Path(keys).read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise FleetError(f"cannot read {keys}: {error.strerror}") from error
        home = self.places.keys / mark
        if not (home / "complete").exists():
            shutil.rmtree(self.places.keys, ignore_errors=True)
            git.import_keys(Path(keys), home)
            (home / "complete").touch()
        return str(home)

    # --- validate

    def _validate(self, state: Fetched, choice: refs.Choice) -> str:
        try:
            branch = choice.name.removeprefix("refs/heads/")
            wanted = self.revisions.manifest(choice.commit, branch=branch, doing=self._doing)
            return self._named(state, wanted.name)
        except ManifestError as error:
            lines = "\n".join(str(one) for one in error.problems)
            told = FleetError(f"commit {choice.commit[:12]}: {lines}")
            raise Stopped("Valid", "ManifestInvalid", told, problem_documents(error.problems)) from error
        except FleetError as error:
            told = FleetError(f"commit {choice.commit[:12]}: {error.message}", hint=error.hint)
            raise Stopped("Valid", type(error).__name__, told) from error
        except OSError as error:
            told = FleetError(f"commit {choice.commit[:12]}: {error.filename}: {error.strerror}")
            raise Stopped("Valid", "CannotWrite", told) from error

    def _named(self, state: Fetched, fleet: str) -> str:
        """A fleet that changes its name would leave the old one behind, running, with nobody to look after it."""
        if state.fleet and fleet != state.fleet:
            message = f"the manifest is of fleet {fleet!r} now, and this source keeps {state.fleet!r}"
            problem = Problem(
                self.source.spec.git.paths[0], 0, 0, "metadata.name", message, "give it a source of its own"
            )
            raise ManifestError([problem])
        return fleet


class _Progress(Exception):
    """How far a look got before it stopped."""

    def __init__(self, state: Fetched, cause: Stopped) -> None:
        super().__init__(str(cause))
        self.state = state
        self.cause = cause
