"""The steps of every change: look, show, guard, ask, lock, look again, carry out."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.cli.foreseen import say_foreseen
from fleet.cli.output import Output
from fleet.cli.progress import Progress
from fleet.cli.signals import Signals
from fleet.cli.target import applied_or_told, duration
from fleet.core.desired import RESERVED_PREFIX
from fleet.core.plan import Plan
from fleet.core.planning import budget, plan_text
from fleet.core.planning.selection import leaving
from fleet.errors import CannotWrite, Refused, StalePlan
from fleet.inputs import machine
from fleet.operate.apply.events import STARTS_PER_CORE, Report, StepsFailed, WalkOptions
from fleet.operate.change import carry_out
from fleet.operate.local_fleet import LocalFleet, PlannedChange
from fleet.operate.lost_queues import warned
from fleet.operate.sync import by_hand
from fleet.state import logs
from pools.traits import TRAITS

DECLINED = 1
LAST_WORDS = 5
_MARGIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ChangeFlags:
    """How a change is to be made, from the flags of its verb."""

    yes: bool = False
    dry_run: bool = False
    wait: bool = True
    timeout_seconds: float | None = None
    max_destroy: str = ""
    reason: str = ""
    adopt: bool = False
    suspend_seconds: float = 0.0
    if_plan: str = ""

    @classmethod
    def of(cls, args: argparse.Namespace) -> ChangeFlags:
        """The flags that a verb has; the others keep their defaults."""
        given = vars(args)
        return cls(
            yes=given.get("yes", False),
            dry_run=given.get("dry_run", False),
            wait=not given.get("no_wait", False),
            timeout_seconds=given.get("timeout"),
            max_destroy=given.get("max_destroy") or "",
            reason=given.get("reason") or "",
            adopt=given.get("adopt", False),
            suspend_seconds=given.get("suspend") or 0.0,
            if_plan=given.get("if_plan") or "",
        )


def change_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every verb that changes a fleet."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument(
        "--timeout", type=duration, metavar="TIME", help="longest wait (default: as long as the plan may take)"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait until started replicas are ready")
    parser.add_argument("--reason", metavar="TEXT", help="why, for the audit log")
    parser.add_argument(
        "--if-plan", metavar="DIGEST", help="refuse (exit 7) where the plan is not the one of that `planDigest`"
    )


def destroy_flag(parser: argparse.ArgumentParser) -> None:
    """--max-destroy, for verbs that may remove replicas."""
    parser.add_argument(
        "--max-destroy", type=_share, metavar="COUNT", help="refuse to remove more replicas than 3, or than 20%%"
    )


def owner_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every verb that changes what a fleet is to be: it may belong to another source."""
    parser.add_argument("--adopt", action="store_true", help="take over a fleet that belongs to another source")
    parser.add_argument(
        "--suspend", type=duration, metavar="TIME", help="keep `fleet sync` off for so long; needs --reason"
    )


def _share(text: str) -> str:
    """argparse type: ``3`` or ``20%``."""
    if text.removesuffix("%").isdigit():
        return text
    raise argparse.ArgumentTypeError(f"not a number or a share of replicas: {text!r}; write it like '3' or '20%'")


def run_change(
    fleet: LocalFleet, out: Output, *, verb: str, look: Callable[[], PlannedChange], flags: ChangeFlags
) -> int:
    """Do what a verb plans; its exit code. ``look`` is called again whenever the fleet may have changed."""
    if flags.dry_run:
        change = warned(look())
        shown = {**plan_text.document(change.plan), "planDigest": plan_digest(change.plan)}
        out.either(shown, _shown(change.plan, out))
        say_foreseen(change, out)
        return 0
    asked: Plan | None = None
    if out.can_ask() and not flags.yes:
        first = warned(look())
        asked = first.plan
        if not _agreed(first, out):
            return DECLINED
    with fleet.lock():
        change = look()
        _check_digest(change.plan, flags.if_plan)
        if asked is None:
            change = warned(change)
            _show(change, out)
        elif _steps(change.plan) != _steps(asked):
            out.say("the fleet has changed meanwhile; the plan is now:")
            if not _agreed(change, out):
                return DECLINED
        _guard(change, flags)
        make_claim(fleet, out, claim_of(verb, change, flags))
        report = _carry_out(fleet, out, verb=verb, change=change, flags=flags)
    finished(fleet, out, change.plan, report)
    return 0


def claim_of(verb: str, change: PlannedChange, flags: ChangeFlags) -> by_hand.Claim | None:
    """What a change says about the fleet's owner; None for one that leaves the manifest as it is."""
    if change.manifest is None:
        return None
    files = None if verb == "rollback" else change.manifest.origin.sources
    return by_hand.Claim(files, flags.adopt, flags.suspend_seconds, flags.reason)


def make_claim(fleet: LocalFleet, out: Output, claim: by_hand.Claim | None) -> None:
    """Refuse to change another's fleet, or do what the flags say about it."""
    if claim is None:
        return
    by_hand.check(fleet, claim)
    if told := by_hand.take(fleet, claim):
        out.say(told)


def _carry_out(fleet: LocalFleet, out: Output, *, verb: str, change: PlannedChange, flags: ChangeFlags) -> Report:
    """Carry out the plan; the caller holds the lock."""
    try:
        change.before()
    except CannotWrite as error:
        if not change.plan.only_stops:
            raise
        out.say(f"warning: {error.message}; the next apply undoes this")
    try:
        with Signals(out) as signals, Progress(out, change.plan) as progress:
            options = WalkOptions(
                _patience_seconds(fleet, change.plan, flags),
                wait=flags.wait,
                starts_at_once=STARTS_PER_CORE * machine.cpus(),
                interrupted=signals.number,
            )
            return carry_out(fleet, change, verb=verb, reason=flags.reason, on_event=progress.on_event, options=options)
    except StepsFailed as error:
        if error.failures:
            _last_words(fleet, out, error.failures[0][0].replica)
        raise


def _last_words(fleet: LocalFleet, out: Output, replica: str) -> None:
    """Show the end of a failed replica's log: most often it holds the reason."""
    lines = logs.merged({replica: fleet.places.log_file(replica)}, last=LAST_WORDS)
    if lines:
        out.say(f"the end of the log of {replica}:")
        for line in lines:
            out.say(f"  | {line.text}")


def _refuse_missing_pools(plan: Plan) -> None:
    """Raise for pools that are not installed: their workers would only crash until they are parked.

    That can be known of fleet's own interpreter only; another one says so in the log of its worker.
    """
    targets = [step.target for step in plan.changes if step.target is not None and step.target.spec.kind == "worker"]
    own = [one for one in targets if one.spec.python in ("", sys.executable)]
    missing = {one.group: one.spec.pool.type for one in own if not _is_installed(TRAITS[one.spec.pool.type].library)}
    if missing:
        groups = ", ".join(f"{group} ({pool})" for group, pool in sorted(missing.items()))
        libraries = " ".join(sorted({TRAITS[pool].library for pool in missing.values()}))
        raise Refused(
            f"the pools of these groups are not installed: {groups}",
            hint=f"pip install {libraries}, or use a different pool",
        )


def _is_installed(library: str) -> bool:
    return not library or importlib.util.find_spec(library) is not None


def _guard(change: PlannedChange, flags: ChangeFlags) -> None:
    """Raise Refused for what breaks a budget or removes more than is allowed."""
    budget.check(change.desired, change.plan, change.observed)
    _refuse_missing_pools(change.plan)
    if not flags.max_destroy:
        return
    gone = leaving(change.plan)
    running = [one for one in change.observed.replicas.values() if not one.group.startswith(RESERVED_PREFIX)]
    number = int(flags.max_destroy.removesuffix("%"))
    allowed = len(running) * number // 100 if flags.max_destroy.endswith("%") else number
    if len(gone) > allowed:
        raise Refused(
            f"the plan removes {len(gone)} of {len(running)} replicas, and --max-destroy allows {allowed}",
            hint=f"look at `fleet plan`; if you mean it, use --max-destroy {len(gone)}",
        )


def _agreed(change: PlannedChange, out: Output) -> bool:
    """Show a plan and ask; a plan without steps needs no answer."""
    _show(change, out)
    if change.plan.is_empty or out.confirmed("Do this?"):
        return True
    out.say("nothing was done")
    return False


def _show(change: PlannedChange, out: Output) -> None:
    text = _shown(change.plan, out)
    if out.is_json:
        out.say(text.rstrip("\n"))
    else:
        out.facts(text)
    say_foreseen(change, out)


def _shown(plan: Plan, out: Output) -> str:
    return plan_text.text(plan, colour=out.colour)


def plan_digest(plan: Plan) -> str:
    """Sixteen hex digits over what a plan would do: its steps, and what each replica is to be after them."""
    return hashlib.sha256(json.dumps(_steps(plan)).encode()).hexdigest()[:16]


def _check_digest(plan: Plan, wanted: str) -> None:
    if wanted and plan_digest(plan) != wanted:
        hint = "look again with --dry-run -o json, and give the `planDigest` that it says"
        raise StalePlan(f"the plan for fleet {plan.fleet!r} is not the one that was asked for", hint=hint)


def _steps(plan: Plan) -> list[tuple[str, ...]]:
    return [(step.id, step.target.live if step.target else "") for step in plan.changes]


def _patience_seconds(fleet: LocalFleet, plan: Plan, flags: ChangeFlags) -> float:
    if flags.timeout_seconds is not None:
        return flags.timeout_seconds
    return max(fleet.settings.ready_timeout_seconds, plan.worst_case_seconds + _MARGIN_SECONDS)


def finished(fleet: LocalFleet, out: Output, plan: Plan, report: Report) -> None:
    """Say how it ended."""
    for warning in report.warnings:
        out.say(f"warning: {warning}")
    applied = applied_or_told(fleet, out)
    revision = applied.revision if applied is not None else 0
    if out.is_json:
        document: dict[str, Any] = plan_text.document(plan)
        out.document({**document, "revision": revision, "outcome": "done", "seconds": round(report.seconds, 3)})
    elif plan.changes:
        count = len(report.done)
        steps = f"{count} step{'s' if count != 1 else ''}"
        out.say(f"fleet {plan.fleet}, revision {revision}: done, {steps} in {report.seconds:.1f} s")
