"""What to do with the revision at hand: deploy it, only plan it, or keep what was applied."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Mode = Literal["auto", "plan-only", "window"]
HealMode = Literal["enabled", "warn", "disabled"]


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that counts.

    good: the newest commit whose manifest holds.  failed: the one whose rollout failed.  is_paused: half done.
    suspended: until when and why, empty when it is not.  window_closes: when the open window ends, None without one.
    window_opens: the next one.
    """

    good: str
    applied: str = ""
    failed: str = ""
    is_paused: bool = False
    approved: str = ""
    mode: Mode = "auto"
    heal: HealMode = "enabled"
    suspended: str = ""
    window_closes: float | None = None
    window_opens: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now. Each is a commit or nothing.

    deploy: bring the fleet to it.  preview: plan it and say so, without doing it.  heal: put right what differs from
    it.  watch: say what differs from it.  reason: one word, and message for people, for what is not done.
    """

    deploy: str = ""
    preview: str = ""
    heal: str = ""
    watch: str = ""
    reason: str = ""
    message: str = ""


def decide(now: Situation) -> Verdict:
    """One verdict. A revision that waits or failed never keeps the applied one from being healed."""
    if now.suspended:
        return Verdict(reason="Suspended", message=now.suspended)
    if not now.good:
        return _stay(now, "NoRevision", "no revision has been valid yet")
    if now.good == now.applied:
        return _stay(now, "", "")
    if now.good == now.failed and now.approved != now.good and now.is_paused:
        message = f"the rollout of {now.good[:12]} is paused; `fleet sync approve` or a new commit goes on"
        return Verdict(reason="RolloutPaused", message=message)
    if now.good == now.failed and now.approved != now.good:
        message = f"the rollout of {now.good[:12]} failed; it is not tried again unchanged"
        return _stay(now, "RolloutFailed", message)
    if now.mode == "auto" or now.approved == now.good:
        return Verdict(deploy=now.good)
    if now.mode == "window" and now.window_closes is not None:
        return Verdict(deploy=now.good)
    return _wait(now)


def _wait(now: Situation) -> Verdict:
    stay = _stay(now, "", "")
    if now.mode == "plan-only":
        reason, message = "PlanOnly", f"{now.good[:12]} waits for `fleet sync approve`"
    else:
        opens = (
            "no window opens any more" if now.window_opens is None else f"the next window opens {at(now.window_opens)}"
        )
        reason, message = "OutsideWindow", f"{now.good[:12]} waits: {opens}"
    return Verdict(preview=now.good, heal=stay.heal, watch=stay.watch, reason=reason, message=message)


def _stay(now: Situation, reason: str, message: str) -> Verdict:
    """Keep what was applied."""
    if not now.applied or now.heal == "disabled":
        return Verdict(reason=reason, message=message)
    if now.heal == "warn" or now.mode == "plan-only":
        return Verdict(watch=now.applied, reason=reason, message=message)
    return Verdict(heal=now.applied, reason=reason, message=message)


def at(seconds: float) -> str:
    """``2026-12-01T08:00:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
