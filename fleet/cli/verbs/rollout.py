"""rollout: how far a change of revision got, and steering one that goes on or was cut short."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fleet.cli.change_flow import ChangeFlags, change_flags, run_change
from fleet.cli.live_view import looker
from fleet.cli.output import Cell, Output, table
from fleet.cli.target import Target, action_argument, fleet_of, no_names, output_flag, target_flags, target_of
from fleet.core.status import Status
from fleet.core.text.format import counted, duration
from fleet.errors import NotReady, RolloutFailed, UsageError

if TYPE_CHECKING:
    from fleet.operate.local_fleet import LocalFleet, PlannedChange
    from fleet.operate.rollout import Rollout

ACTIONS = {
    "status": "how far it got, who carries it out, and what can be done",
    "pause": "begin no further step; what is under way is finished",
    "resume": "go on: after a pause, and where it failed or its process was ended",
    "promote": "end the comparison of a canary, and replace the rest",
    "abort": "end it, and go back to the last good revision",
}
_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 600.0
_CODES = {"progressing": NotReady.exit_code, "none": NotReady.exit_code, "down": NotReady.exit_code, "complete": 0}


def rollout_flags(parser: argparse.ArgumentParser) -> None:
    action_argument(parser, ACTIONS)
    target_flags(parser)
    parser.add_argument("--exit-code", action="store_true", help="status: exit 4 while it goes on, 6 where it stopped")
    change_flags(parser)
    output_flag(parser)


def rollout(args: argparse.Namespace, out: Output) -> int:
    """One of the actions."""
    target = target_of(args)
    no_names(target)
    fleet = fleet_of(target)
    act = {"status": _status, "pause": _pause, "resume": _resume, "promote": _promote, "abort": _abort}[args.action]
    code: int = act(fleet, target, args, out)
    return code


# --- seeing


def _status(fleet: LocalFleet, target: Target, args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.rollout import seen

    found = seen(fleet)
    groups = looker(fleet, target)()
    out.either(document(fleet.name, found, groups), text(fleet.name, found, groups, now=fleet.now(), out=out))
    return _CODES.get(found.state, RolloutFailed().exit_code) if args.exit_code else 0


def document(name: str, found: Rollout, groups: Status) -> dict[str, Any]:
    """For scripts. ``steps`` and what follows are of the newest rollout that the audit knows."""
    walked = found.walked
    made: dict[str, Any] = {
        "fleet": name,
        "state": str(found.state),
        "revision": found.revision,
        "goodRevision": found.good,
        "pid": found.pid or None,
        "failure": found.failure,
        "next": _next(found),
        "groups": {
            group.name: {
                "desired": group.desired_replicas,
                "upToDate": group.up_to_date_replicas,
                "ready": group.ready_replicas,
                "available": group.available_replicas,
            }
            for group in groups.groups.values()
        },
    }
    if walked is not None:
        made["walk"] = {
            "verb": walked.verb,
            "by": walked.by,
            "pid": walked.pid,
            "at": walked.at,
            "revision": walked.revision,
            "wayBack": walked.is_way_back,
            "steps": walked.steps,
            "done": walked.done,
            "underWay": list(walked.under_way),
            "comparing": found.comparing,
            "comparison": _comparison(found),
            "verdicts": list(walked.verdicts),
            "failures": list(walked.failures),
            "outcome": walked.outcome,
        }
    return made


def _comparison(found: Rollout) -> dict[str, Any] | None:
    """Which comparison goes on: ``step`` of ``steps``."""
    if found.walked is None or not found.comparing:
        return None
    comparison = found.walked.comparison
    return {"kind": comparison.title, "step": comparison.number, "steps": comparison.of}


def text(name: str, found: Rollout, groups: Status, *, now: float, out: Output) -> str:
    """Where it is, the groups, and what to do."""
    head = f"fleet {name}, revision {found.revision}: {found.state}" if found.revision else f"fleet {name}: no rollout"
    lines = [head, *_walk_lines(found, now)]
    rows = [
        [
            Cell(group.name),
            *(
                Cell(str(count), right=True)
                for count in (
                    group.desired_replicas,
                    group.up_to_date_replicas,
                    group.ready_replicas,
                    group.available_replicas,
                )
            ),
        ]
        for group in groups.groups.values()
    ]
    shown = (
        ["", table(("GROUP", "WANTED", "UP TO DATE", "READY", "AVAILABLE"), rows, colour=out.colour)] if rows else []
    )
    todo = [f"  {line}" for line in _next(found)]
    return "\n".join([*lines, *shown, *(["", "what can be done:", *todo] if todo else [])])


def _walk_lines(found: Rollout, now: float) -> list[str]:
    walked = found.walked
    if walked is None or not found.revision:
        return []
    way = " (the way back after a failed rollout)" if walked.is_way_back else ""
    who = f"`fleet {walked.verb}` of {walked.by}, pid {walked.pid}, begun {duration(round(now - walked.at))} ago{way}"
    end = walked.outcome or ("" if found.pid else "its process ended in the middle")
    lines = [f"{who}: {walked.done} of {counted(walked.steps, 'step')} done" + (f", {end}" if end else "")]
    if found.orders.paused:
        lines.append(f"paused {found.orders.why}")
    if found.pid and walked.under_way:
        lines.append(f"under way: {', '.join(walked.under_way)}")
    if found.comparing:
        lines.append(f"{walked.comparison.name}: {found.comparing} is compared with the old replicas")
    lines += walked.verdicts
    if found.failure:
        lines.append(f"failed: {found.failure}")
    return lines


def _next(found: Rollout) -> list[str]:
    """Commands with what they do."""
    from fleet.operate.rollout import CUT_SHORT, UNDER_WAY

    if found.walked is not None and found.walked.is_way_back and found.state in UNDER_WAY:
        return []
    back = found.good if found.good != found.revision else 0
    cut_short, paused = found.state in CUT_SHORT, found.state == "paused"
    offers = [
        (found.comparing, "fleet rollout promote: do not wait for the comparison"),
        (found.state == "progressing", "fleet rollout pause: begin no further step"),
        (paused, "fleet rollout resume: go on"),
        (cut_short, f"fleet rollout resume: do the rest of revision {found.revision}"),
        (cut_short and back, "fleet rollout promote: the same, and judge no canary"),
        (back and (cut_short or found.state in UNDER_WAY), f"fleet rollout abort: go back to revision {back}"),
    ]
    return [words for offered, words in offers if offered]


# --- steering


def _pause(fleet: LocalFleet, _target: Target, args: argparse.Namespace, out: Output) -> int:
    found = _under_way(fleet, "pause")
    return _ordered(fleet, found, args, out, said="no further step begins", paused=True)


def _resume(fleet: LocalFleet, _target: Target, args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.rollout import CUT_SHORT, seen

    found = seen(fleet)
    if found.state in CUT_SHORT:
        return _gone_on(fleet, found, args, out)
    if found.state != "paused":
        raise UsageError(f"fleet {fleet.name!r} has no rollout to resume", hint=_hint(found))
    return _ordered(fleet, found, args, out, said="it goes on", paused=False)


def _promote(fleet: LocalFleet, _target: Target, args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.rollout import CUT_SHORT, seen

    found = seen(fleet)
    if found.state in CUT_SHORT and found.good != found.revision:
        return _gone_on(fleet, found, args, out, judge=False)
    if not found.comparing:
        raise UsageError(f"fleet {fleet.name!r} compares no canary now", hint=_hint(found))
    return _ordered(fleet, found, args, out, said="the comparison ends", promoted=True)


def _abort(fleet: LocalFleet, target: Target, args: argparse.Namespace, out: Output) -> int:
    """Its process goes back by itself; where there is none, or it ends on the way, this one does."""
    from fleet.operate.rollout import CUT_SHORT, UNDER_WAY, seen

    found = seen(fleet)
    if found.state not in UNDER_WAY | CUT_SHORT:
        raise UsageError(f"fleet {fleet.name!r} has no rollout to abort", hint=_hint(found))
    is_back_already = found.walked is not None and found.walked.is_way_back and found.state in UNDER_WAY
    if not is_back_already and found.good in {0, found.revision}:
        hint = "`fleet rollout pause` and `resume` hold it; `fleet down` removes the fleet"
        raise UsageError(f"fleet {fleet.name!r} has no other good revision to go back to", hint=hint)
    good = found.good
    if found.state in UNDER_WAY:
        if args.dry_run or args.no_wait or not _wait_for_end(fleet, found, args, out, ordered=is_back_already):
            return 0
        found = seen(fleet)
        if found.state not in CUT_SHORT:
            return _status(fleet, target, args, out)
    return _gone_back(fleet, found, good, args, out)


def _wait_for_end(fleet: LocalFleet, found: Rollout, args: argparse.Namespace, out: Output, *, ordered: bool) -> bool:
    """Until the process of a rollout has ended. Raises NotReady where it does not in time."""
    from fleet.operate.rollout import UNDER_WAY, seen

    if not ordered:
        _ordered(fleet, found, args, out, said=f"it goes back to revision {found.good}", silent=True, aborted=True)
    limit = args.timeout if args.timeout is not None else _PATIENCE_SECONDS
    until = time.monotonic() + limit
    while seen(fleet).state in UNDER_WAY:
        if time.monotonic() > until:
            raise NotReady(
                f"the rollout of fleet {fleet.name!r} (pid {found.pid}) has not ended within {duration(limit)}",
                hint=f"if it hangs, end it with `kill {found.pid}`, then `fleet rollout abort` again",
            )
        time.sleep(_LOOK_SECONDS)
    return True


def _under_way(fleet: LocalFleet, verb: str) -> Rollout:
    from fleet.operate.rollout import UNDER_WAY, seen

    found = seen(fleet)
    if found.state not in UNDER_WAY:
        raise UsageError(f"fleet {fleet.name!r} has no rollout to {verb}", hint=_hint(found))
    if found.walked is not None and found.walked.is_way_back:
        raise UsageError(f"fleet {fleet.name!r} goes back after a failed rollout", hint="wait until it is done")
    return found


def _hint(found: Rollout) -> str:
    offers = _next(found)
    return offers[0] if offers else f"its rollout is {found.state}: see `fleet rollout status`"


def _ordered(
    fleet: LocalFleet,
    found: Rollout,
    args: argparse.Namespace,
    out: Output,
    *,
    said: str,
    silent: bool = False,
    **what: bool,
) -> int:
    from fleet.operate.rollout import order

    if args.dry_run:
        out.say(f"fleet {fleet.name}: would tell pid {found.pid}: {said}")
        return 0
    order(fleet, found, reason=args.reason or "", **what)
    out.say(f"fleet {fleet.name}, revision {found.revision}: told pid {found.pid}, {said}")
    if out.is_json and not silent:
        out.document({"fleet": fleet.name, "revision": found.revision, "pid": found.pid, **what})
    return 0


# --- without its process


def _gone_on(fleet: LocalFleet, found: Rollout, args: argparse.Namespace, out: Output, *, judge: bool = True) -> int:
    """Do the rest of a revision that was cut short."""
    loaded = fleet.manifest_of(found.revision)

    def look() -> PlannedChange:
        desired, secrets = fleet.desired_of(loaded)
        change = fleet.planned(desired, secrets, manifest=loaded)
        return change if judge else _unjudged(change)

    return run_change(fleet, out, verb="rollout", look=look, flags=ChangeFlags.of(args))


def _unjudged(change: PlannedChange) -> PlannedChange:
    steps = tuple(replace(step, canary=None, later_canaries=()) for step in change.plan.steps)
    return replace(change, plan=replace(change.plan, steps=steps))


def _gone_back(fleet: LocalFleet, found: Rollout, good: int, args: argparse.Namespace, out: Output) -> int:
    """Take back a revision that was cut short; it counts as failed, so that it is not applied again by mistake."""
    from fleet.inputs.manifest import from_revision
    from fleet.state.audit import who

    loaded = from_revision(fleet.history.get(good), message=f"aborted: back to revision {good}")
    why = f"aborted by {who()}" + (f": {args.reason}" if args.reason else "")

    def mark() -> None:
        fleet.history.conclude(found.revision, "failed", failure=found.failure or why)

    def look() -> PlannedChange:
        desired, secrets = fleet.desired_of(loaded)
        return replace(fleet.planned(desired, secrets, manifest=loaded, prune=True), before=mark)

    return run_change(fleet, out, verb="rollback", look=look, flags=ChangeFlags.of(args))
