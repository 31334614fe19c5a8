"""What to do with a message that has just come: run it, keep it for later, or end it without running it. No effects."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from fleet.broker.delivery import Delivery
from fleet.broker.message import TaskMessage, bounded_seconds
from fleet.core.spec import TaskPolicy as ManifestPolicy
from fleet.worker.apps.base import Application
from fleet.worker.loop.revoked import is_revoked
from fleet.worker.task.call import Call, Ending, TaskPolicy
from fleet.worker.task.job import Job

Way = Literal["run", "later", "end", "bury"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a message goes. ``ending`` and ``detail`` say why it does not run."""

    way: Way
    ending: Ending | None = None
    detail: str = ""


RUN = Verdict("run")
LATER = Verdict("later")


class Admission:
    """Knows the app and what the manifest says about its tasks; turns deliveries into jobs."""

    def __init__(
        self, application: Application, policy_of_manifest: ManifestPolicy, *, deaths: Mapping[str, int] | None = None
    ) -> None:
        """deaths: task id -> how often this replica died while it ran, where the broker does not count."""
        self._deaths = deaths or {}
        self._application = application
        self.policy_of_manifest = policy_of_manifest
        self._policies: dict[str, TaskPolicy] = {}
        self._limits: dict[str, tuple[float | None, float | None]] = {}
        self.report = self.tagged = False

    def adopt(self, policy_of_manifest: ManifestPolicy) -> None:
        """Follow this policy from now on. Time limits set by hand hold until the manifest changes its own."""
        before, self.policy_of_manifest = self.policy_of_manifest, policy_of_manifest
        if (before.time_limit_seconds, before.soft_time_limit_seconds) != (
            policy_of_manifest.time_limit_seconds,
            policy_of_manifest.soft_time_limit_seconds,
        ):
            self._limits.clear()
        self._policies.clear()

    def limit(self, name: str, soft_seconds: float | None, hard_seconds: float | None) -> None:
        """Set the time limits of one task from now on."""
        self._limits[name] = (soft_seconds, hard_seconds)
        self._policies.pop(name, None)

    def job_of(self, delivery: Delivery) -> Job:
        """The job in a delivery. Raises BadMessage for what is no task message."""
        message = TaskMessage.from_delivery(delivery, accept=self._application.accept)
        if self._deaths:
            delivery.attempts = max(delivery.attempts, self._deaths.get(message.id, 0))
        call = Call.of(message, report=self.report, tagged=self.tagged)
        return Job(
            delivery,
            message,
            call,
            self._policy_of(message),
            (call.id, message.retries),
            due=_unix_time(message.eta),
            expires_at=_unix_time(message.expires),
        )

    def examine(self, job: Job, *, now: float, revoked: Container[str]) -> Verdict:
        """What to do with it at this moment (Unix time)."""
        name = job.call.name
        if not self._application.knows(name):
            return Verdict("end", "unknown", f"unknown task {name!r}")
        if is_revoked(job, revoked):
            return Verdict("end", "revoked", "revoked")
        if job.expires_at and now > job.expires_at:
            return Verdict("end", "expired", f"expired {now - job.expires_at:.1f} s ago")
        most = self.policy_of_manifest.max_attempts if job.policy.again_after_crash else 1
        if job.delivery.attempts >= most:
            return Verdict("end", "lost", f"its process died {job.delivery.attempts} times while it ran")
        return LATER if job.due > now else RUN

    def _policy_of(self, message: TaskMessage) -> TaskPolicy:
        """The message's settings, else the task's, else the manifest's; for acknowledgement the manifest's first."""
        policy = self._policies.get(message.name) or self._policy(message.name)
        if not message.has_time_limits:
            return policy
        hard, soft = message.time_limit, message.soft_time_limit
        if hard is None and soft is None:
            return policy
        return replace(
            policy,
            time_limit_seconds=hard or policy.time_limit_seconds,
            soft_time_limit_seconds=soft or policy.soft_time_limit_seconds,
        )

    def _policy(self, name: str) -> TaskPolicy:
        """The settings of the task, completed by the manifest."""
        own, policy_of_manifest = self._application.policy(name), self.policy_of_manifest
        policy = replace(
            own,
            late=own.late if policy_of_manifest.acks is None else policy_of_manifest.acks == "late",
            time_limit_seconds=bounded_seconds(own.time_limit_seconds) or policy_of_manifest.time_limit_seconds,
            soft_time_limit_seconds=bounded_seconds(own.soft_time_limit_seconds)
            or policy_of_manifest.soft_time_limit_seconds,
        )
        if name in self._limits:
            soft, hard = map(bounded_seconds, self._limits[name])
            policy = replace(policy, time_limit_seconds=hard, soft_time_limit_seconds=soft)
        if self._application.knows(name):
            self._policies[name] = policy
        return policy


def _unix_time(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else 0.0
