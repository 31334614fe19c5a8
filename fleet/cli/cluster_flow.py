"""The verbs on a fleet in a cluster: look, show, ask, lock, look again, carry out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fleet.backends.kubernetes import object_plan
from fleet.backends.kubernetes.kinds import DEPLOYMENT, POD, name_of
from fleet.backends.kubernetes.names import RESTARTED, object_name
from fleet.backends.kubernetes.object_plan import Deed
from fleet.backends.kubernetes.rollout_state import rollout_state
from fleet.cli.cluster_target import ClusterTarget
from fleet.cli.output import Output
from fleet.cli.signals import Signals
from fleet.core.desired import RESERVED_PREFIX
from fleet.core.text.format import listed
from fleet.core.text.suggest import did_you_mean
from fleet.errors import Refused, UsageError
from fleet.inputs.manifest import from_revision
from fleet.operate.cluster import carry_out
from fleet.operate.cluster.cluster_fleet import ClusterFleet, Look
from fleet.operate.cluster.compare import RESTART_MANAGER, SCALE_MANAGER, Object
from fleet.operate.cluster.lock import ClusterLock

CHANGES = 2
DECLINED = 1


def plan(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """Show what apply would change, object by object; the server itself says what would come of it."""
    if args.out or args.base:
        raise UsageError("--out and --base are for a fleet on a host", hint="the cluster is asked when it is applied")
    loaded = there.manifest()
    made = there.fleet.planned(loaded, prune=args.prune).plan
    out.either(object_plan.document(made), object_plan.text(made, verbose=args.verbose, colour=out.colour))
    for warning in loaded.warnings:
        out.say(f"warning: {warning}")
    if made.conflicts:
        out.say("warning: what is another's is refused by apply, unless --force-ownership takes it")
    return CHANGES if args.detailed_exitcode and not made.is_empty else 0


def apply(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """Bring the cluster to the manifest."""
    loaded = there.manifest()
    for warning in loaded.warnings:
        out.say(f"warning: {warning}")
    return change(there.fleet, lambda: there.fleet.planned(loaded, prune=args.prune), args, out)


def rollback(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """Apply an earlier revision, as it is kept in the cluster. Groups that were added after it are removed."""
    fleet = there.fleet
    number = args.to
    if number is None:
        latest = fleet.history.latest()
        earlier = fleet.history.last_good(before=latest.number if latest is not None else 0)
        if earlier is None:
            hint = "see `fleet history --target kubernetes`; --to N goes to any of them"
            raise UsageError(f"fleet {fleet.name!r} has no earlier good revision that differs", hint=hint)
        number = earlier.number
    loaded = from_revision(fleet.history.get(number), message=f"rollback to revision {number}")
    return change(fleet, lambda: fleet.planned(loaded, prune=True), args, out)


def change(
    fleet: ClusterFleet,
    look: Callable[[], Look],
    args: argparse.Namespace,
    out: Output,
    *,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Show what a look plans, ask, and carry it out; ``before``: called once nothing more can refuse it."""
    if getattr(args, "if_plan", None):
        raise UsageError("--if-plan is for fleets on a host", hint="in a cluster look with --dry-run, and without it")
    if args.dry_run:
        made = look().plan
        out.either(object_plan.document(made), object_plan.text(made, colour=out.colour))
        return 0
    asked: object_plan.ObjectPlan | None = None
    if out.can_ask() and not args.yes:
        asked = look().plan
        if not _agreed(asked, out):
            return DECLINED
    with fleet.lock(_command()) as lock, Signals(out) as signals:
        found = look()
        if asked is None:
            _show(found.plan, out)
        elif asked.identity != found.plan.identity:
            out.say("the cluster has changed meanwhile; the plan is now:")
            if not _agreed(found.plan, out):
                return DECLINED
        _guard(found, args)
        before()
        flags = flags_of(args, out, signals)
        carry_out.refuse_conflicts(found, force=flags.force_ownership)
        revision = carry_out.apply_or_go_back(fleet, found, flags, lock=lock)
    _finished(fleet, found, revision, out)
    return 0


def flags_of(args: argparse.Namespace, out: Output, signals: Signals) -> carry_out.Flags:
    """How a change is made, from the flags of its verb."""
    given = vars(args)
    return carry_out.Flags(
        say=out.say,
        wait=not given.get("no_wait", False),
        timeout_seconds=given.get("timeout"),
        force_ownership=given.get("force_ownership", False),
        reason=given.get("reason") or "",
        interrupted=signals.number,
    )


def _guard(look: Look, args: argparse.Namespace) -> None:
    """Raise Refused for removing more pods than --max-destroy allows."""
    if not (said := args.max_destroy):
        return
    running = {name: _count(one) for name, one in look.live.items() if one["kind"] == DEPLOYMENT.name}
    leaving = sum(
        count - (_count(look.wanted[name]) if name in look.wanted else 0)
        for name, count in running.items()
        if any(one.reference == name and one.deed in (Deed.REMOVE, Deed.CHANGE) for one in look.plan.objects)
        and (name not in look.wanted or _count(look.wanted[name]) < count)
    )
    number, total = int(said.removesuffix("%")), sum(running.values())
    allowed = total * number // 100 if said.endswith("%") else number
    if leaving > allowed:
        raise Refused(
            f"the plan removes {leaving} of {total} pods, and --max-destroy allows {allowed}",
            hint=f"look at `fleet plan`; if you mean it, use --max-destroy {leaving}",
        )


def _count(deployment: Object) -> int:
    """Pods that a Deployment is to have; of one that KEDA scales 0, because nothing of it is removed."""
    return int(deployment["spec"].get("replicas") or 0)


def _agreed(made: object_plan.ObjectPlan, out: Output) -> bool:
    _show(made, out)
    if made.is_empty or out.confirmed("Do this?"):
        return True
    out.say("nothing was done")
    return False


def _show(made: object_plan.ObjectPlan, out: Output) -> None:
    text = object_plan.text(made, colour=out.colour)
    if out.is_json:
        out.say(text.rstrip("\n"))
    else:
        out.facts(text)


def _finished(fleet: ClusterFleet, look: Look, revision: int, out: Output) -> None:
    if out.is_json:
        out.document({**object_plan.document(look.plan), "revision": revision, "outcome": "done"})
    else:
        out.say(f"fleet {fleet.name} in {fleet.place}, revision {revision}: done")


def _command() -> str:
    return " ".join([Path(sys.argv[0] or "fleet").name, *sys.argv[1:2]])


# --- verbs that leave the manifest alone


def down(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """Remove everything the fleet owns; its revisions stay, so that an apply brings it back."""
    fleet = there.fleet
    if not args.yes:
        if not out.can_ask():
            message = f"fleet {fleet.name!r} is not taken down: there is no terminal to ask on"
            raise Refused(message, hint="confirm with --yes")
        _show(fleet.removed().plan, out)
        if not out.confirmed(f"Take fleet {fleet.name!r} in {fleet.place} down?"):
            out.say("nothing was done")
            return DECLINED
    with fleet.lock(_command()) as lock, Signals(out) as signals:
        if (moving := fleet.migration()) is not None and moving.groups:
            whose = f"{listed(sorted(moving.groups))} moved here from host {moving.host}"
            out.say(f"warning: {whose}; `fleet migrate step --back` there brings a group back")
        look = fleet.removed()
        carry_out.take_down(fleet, look, flags_of(args, out, signals), lock=lock)
    if out.is_json:
        out.document({**object_plan.document(look.plan), "outcome": "done"})
    elif look.plan.is_empty:
        out.say(f"nothing to take down: fleet {fleet.name!r} has no objects in {fleet.place}")
    else:
        out.say(f"fleet {fleet.name} in {fleet.place}: down, its revisions are kept")
    return 0


def scale_live(there: ClusterTarget, counts: Mapping[str, int], args: argparse.Namespace, out: Output) -> int:
    """Set numbers of pods until the next apply."""
    if args.lasting is not None:
        raise UsageError("--for is for a fleet on a host", hint="in a cluster nothing ends it; the next apply does")
    fleet = there.fleet
    deployments = _named_groups(fleet, list(counts))
    for group, one in deployments.items():
        if "replicas" not in one["spec"] or _is_scaled(fleet, one):
            hint = "change `min` and `max` in the manifest, or pause the ScaledObject"
            raise Refused(f"group {group} is scaled by KEDA", hint=hint)
    lines = [f"~ {group}: {deployments[group]['spec']['replicas']} -> {count} pods" for group, count in counts.items()]
    if not _goes_ahead(lines, args, out):
        return DECLINED if not args.dry_run else 0
    with fleet.lock(_command()) as lock, Signals(out) as signals:
        for group, count in counts.items():
            patch = {"spec": {"replicas": count}}
            fleet.cluster.merge(DEPLOYMENT, name_of(deployments[group]), patch, manager=SCALE_MANAGER)
        _wait(deployments, fleet, counts, flags_of(args, out, signals), lock)
    return _said_done(fleet, out, {"scaled": dict(counts)}, "the next apply brings the manifest's numbers back")


def _is_scaled(fleet: ClusterFleet, deployment: Object) -> bool:
    return f"ScaledObject/{name_of(deployment)}" in fleet.owned()


def restart(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """New pods of the same spec: of groups by their rollout policy, or single pods, which are drained and replaced."""
    fleet = there.fleet
    groups, pods = chosen(fleet, there_names(args), out_all=args.all)
    lines = [f"↻ {group}: its pods are replaced by its rollout policy" for group in groups]
    if not _goes_ahead([*lines, *(f"↻ {pod}: drained and replaced" for pod in pods)], args, out):
        return DECLINED if not args.dry_run else 0
    moment = datetime.fromtimestamp(fleet.now(), UTC).isoformat(timespec="seconds")
    patch = {"spec": {"template": {"metadata": {"annotations": {RESTARTED: moment}}}}}
    with fleet.lock(_command()) as lock, Signals(out) as signals:
        before = fleet.deployments()
        for group in groups:
            fleet.cluster.merge(DEPLOYMENT, object_name(fleet.name, group), patch, manager=RESTART_MANAGER)
        for pod in pods:
            fleet.cluster.delete(POD, pod)
        touched = {*groups, *(_group_of_pod(fleet, pod) for pod in pods)} - {""}
        _wait(before, fleet, touched, flags_of(args, out, signals), lock)
    return _said_done(fleet, out, {"restarted": [*groups, *pods]}, "restarted")


def _group_of_pod(fleet: ClusterFleet, pod: str) -> str:
    """By its name: it may be gone already."""
    groups = sorted(fleet.deployments(), key=len, reverse=True)
    return next((group for group in groups if pod.startswith(f"{object_name(fleet.name, group)}-")), "")


def hold(there: ClusterTarget, args: argparse.Namespace, out: Output, *, on: bool) -> int:
    """Tell the workers in pods to take no tasks, or to take them again; a pod that is replaced is not held."""
    fleet = there.fleet
    groups, named = chosen(fleet, there_names(args), out_all=args.all)
    pods = [*named, *(name_of(one) for group in groups for one in fleet.pods(group))]
    mark = "‖" if on else "▸"
    if not _goes_ahead([f"{mark} {pod}" for pod in pods], args, out):
        return DECLINED if not args.dry_run else 0
    command = ("python3", "-P", "-m", "fleet.replica.hold", "on" if on else "off")
    failed = {pod: said for pod in pods if (said := fleet.cluster.run(pod, command).strip()) != "done"}
    if failed:
        pod, said = next(iter(failed.items()))
        raise Refused(f"{len(failed)} of {len(pods)} pods did not do it, {pod}: {said or 'no answer'}")
    word = "held: it finishes what it runs; a pod that is replaced takes tasks again" if on else "released"
    return _said_done(fleet, out, {"held" if on else "released": pods}, word)


def drain(there: ClusterTarget, args: argparse.Namespace, out: Output) -> int:
    """Workers take no more tasks and keep running."""
    if args.lasting is not None or args.wait:
        flag = "--for" if args.lasting is not None else "--wait"
        raise UsageError(f"{flag} is for a fleet on a host", hint="`fleet status` shows what still runs")
    return hold(there, args, out, on=True)


def there_names(args: argparse.Namespace) -> tuple[str, ...]:
    """The words of the command line that name groups or pods."""
    from fleet.cli.target import target_of

    return target_of(args).names


def chosen(
    fleet: ClusterFleet, names: Sequence[str], *, out_all: bool = True, with_jobs: bool = False
) -> tuple[list[str], list[str]]:
    """Groups and pods that are named; every group where nothing is and ``out_all``. Raises UsageError with a guess.

    with_jobs: groups that run once as well, and fleet's own controller.
    """
    jobs = fleet.jobs()
    deployments = {**fleet.deployments(), **(jobs if with_jobs else {})}
    if not names:
        if not out_all:
            raise UsageError("name groups or pods, or say --all", hint="for example `fleet restart thumbs`")
        return sorted(group for group in deployments if with_jobs or not group.startswith(RESERVED_PREFIX)), []
    pods = {name_of(one) for one in fleet.pods()}
    for name in names:
        if name in jobs and name not in deployments:
            raise UsageError(f"group {name} is a job", hint="it runs again with the next apply that changes it")
        if name not in deployments and name not in pods:
            hint = did_you_mean(name, [*deployments, *pods]) or "there are none"
            raise UsageError(f"there is no group or pod {name!r} of fleet {fleet.name!r} in {fleet.place}", hint=hint)
    return [name for name in names if name in deployments], [name for name in names if name not in deployments]


def _named_groups(fleet: ClusterFleet, names: Sequence[str]) -> dict[str, Object]:
    deployments = fleet.deployments()
    for name in names:
        if name not in deployments:
            hint = did_you_mean(name, deployments) or "there are none"
            raise UsageError(f"there is no group {name!r} of fleet {fleet.name!r} in {fleet.place}", hint=hint)
    return {name: deployments[name] for name in names}


def _goes_ahead(lines: Sequence[str], args: argparse.Namespace, out: Output) -> bool:
    """Show what is done; False where it is not to be done."""
    for line in lines:
        if out.is_json:
            out.say(line)
        else:
            out.facts(line)
    if args.dry_run:
        return False
    if out.can_ask() and not args.yes and not out.confirmed("Do this?"):
        out.say("nothing was done")
        return False
    return True


def _wait(
    before: Mapping[str, Object], fleet: ClusterFleet, groups: Iterable[str], flags: carry_out.Flags, lock: ClusterLock
) -> None:
    """``before``: group -> its Deployment as it was."""
    if flags.wait:
        names = {group: object_name(fleet.name, group) for group in groups}
        verdicts = {name: rollout_state(before[group]).verdict for group, name in names.items()}
        carry_out.wait_for(fleet, list(names.values()), flags, lock=lock, verdicts=verdicts)


def _said_done(fleet: ClusterFleet, out: Output, document: Mapping[str, object], word: str) -> int:
    if out.is_json:
        out.document({"fleet": fleet.name, "place": str(fleet.place), **document, "outcome": "done"})
    else:
        out.say(f"fleet {fleet.name} in {fleet.place}: {word}")
    return 0
