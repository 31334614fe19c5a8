"""restart, drain, pause, resume: some groups or replicas of a running fleet, by the manifest that was applied last."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from fleet.apply import PAUSE_MAX_SECONDS, Terms
from fleet.audit import who
from fleet.cli.change_flow import Look, Manner, change_flags, conduct
from fleet.cli.output import Output
from fleet.cli.signals import Signals
from fleet.cli.target import checked_names, duration, groups_of, output_flag, session_of, target_flags, target_of
from fleet.core.desired import Desired
from fleet.errors import Interrupted, NotReady, UsageError
from fleet.overrides import Kind, Override, added, ended
from fleet.session import Session, sharing


def _flags(parser: argparse.ArgumentParser, *, names: str) -> None:
    target_flags(parser, names=names)
    parser.add_argument("--all", action="store_true", help="every group")
    change_flags(parser)
    output_flag(parser)


def restart_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of restart."""
    _flags(parser, names="groups or replicas to run anew")


def restart(args: argparse.Namespace, out: Output) -> int:
    """Run replicas anew under the rollout policy of their group."""
    session, names = _named(args)
    wanted = session.last_applied()

    def look() -> Look:
        aim = session.aim(wanted)
        chosen = _chosen(names, aim.desired)
        return Look(session.outlook(aim.desired, restart=chosen, only=groups_of(chosen, aim.desired)), aim.secrets)

    return conduct(session, out, "restart", look, _manner(args, "restart", names))


def drain_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of drain."""
    _flags(parser, names="groups or replicas that stop taking work")
    parser.add_argument("--for", dest="lasting", type=duration, metavar="TIME", help="until then (default: `resume`)")
    parser.add_argument("--wait", action="store_true", help="also wait until they have finished what they run")


def drain(args: argparse.Namespace, out: Output) -> int:
    """Hold replicas: they finish what they run and take nothing new, through restarts too."""
    session, names = _named(args)
    code = _except(session, names, "drained", args, out)
    if code == 0 and args.wait and not args.dry_run:
        _wait_idle(session, names, args.timeout, out)
    return code


def pause_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of pause."""
    _flags(parser, names="groups to hold at zero replicas")
    parser.add_argument("--for", dest="lasting", type=duration, metavar="TIME", help="until then (default: `resume`)")


def pause(args: argparse.Namespace, out: Output) -> int:
    """Hold groups at zero replicas."""
    session, names = _named(args)
    return _except(session, names, "paused", args, out)


def _except(session: Session, names: Sequence[str], kind: Kind, args: argparse.Namespace, out: Output) -> int:
    """Make live exceptions for these names, and carry them out."""
    wanted = session.last_applied()
    now = session.now()
    until = now + args.lasting if args.lasting is not None else None

    def look() -> Look:
        desired = session.aim(wanted).desired
        known = _chosen(names, desired, groups_only=kind == "paused")
        if kind == "drained":
            known = _that_listen(known, desired, refuse=bool(names))
        new = [Override(kind, name, now, who(), args.reason or "", until) for name in known]
        overrides = added(session.overrides(), *new)
        aim = session.aim(wanted, overrides=overrides)

        def write() -> None:
            session.keep_overrides(overrides)
            session.audit.write(*({"event": "override", "override": str(one)} for one in new))

        return Look(session.outlook(aim.desired, only=groups_of(known, aim.desired)), aim.secrets, before=write)

    return conduct(session, out, "pause" if kind == "paused" else "drain", look, _manner(args, kind, names))


def _that_listen(names: Sequence[str], desired: Desired, *, refuse: bool) -> tuple[str, ...]:
    """Only fleet's own workers can stop taking work and stay; a foreign program does not know how."""
    deaf = [name for name in names if desired.groups[next(iter(groups_of([name], desired)))].spec.kind != "worker"]
    if deaf and refuse:
        hint = f"`fleet pause {deaf[0].partition('.')[0]}` stops it, and `fleet resume` brings it back"
        raise UsageError(f"{deaf[0]} is not one of fleet's own workers and cannot be told to take no work", hint=hint)
    return tuple(name for name in names if name not in deaf)


def resume_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of resume."""
    _flags(parser, names="groups or replicas that go back to what the manifest says")


def resume(args: argparse.Namespace, out: Output) -> int:
    """End live exceptions."""
    session, names = _named(args)
    wanted = session.last_applied()

    def look() -> Look:
        before = session.overrides()
        known = _chosen(names, session.aim(wanted, overrides=()).desired)
        left = ended(before, known)
        aim = session.aim(wanted, overrides=left)
        _mention(known, left, aim.desired, out)

        def write() -> None:
            session.keep_overrides(left)
            gone = [one for one in before if one not in left]
            session.audit.write(*({"event": "override.ended", "override": str(one)} for one in gone))

        only = groups_of(known, aim.desired) | sharing(aim.desired)
        return Look(session.outlook(aim.desired, only=only), aim.secrets, before=write)

    return conduct(session, out, "resume", look, _manner(args, "resume", names))


def _mention(names: Sequence[str], left: Sequence[Override], desired: Desired, out: Output) -> None:
    """Why something stays as it is although it was resumed."""
    for group in sorted(groups_of(names, desired)):
        if desired.groups[group].paused and not any(one.target == group and one.kind == "paused" for one in left):
            out.say(f"note: {group} is paused in the manifest: change `paused` there")
        held = any(one.target == group and one.kind in ("drained", "paused") for one in left)
        if group not in names and held:
            out.say(f"note: the whole group {group} is held: fleet resume {group}")


def _named(args: argparse.Namespace) -> tuple[Session, tuple[str, ...]]:
    """The fleet, and the names that were given; none with --all."""
    target = target_of(args)
    if bool(target.names) == bool(args.all):
        raise UsageError("name groups or replicas, or say --all", hint="like `fleet restart thumbs reports.0`")
    return session_of(target), target.names


def _chosen(names: Sequence[str], desired: Desired, *, groups_only: bool = False) -> tuple[str, ...]:
    if not names:
        return tuple(name for name, group in desired.groups.items() if not group.system)
    return checked_names(names, desired, groups_only=groups_only)


def _manner(args: argparse.Namespace, what: str, names: Sequence[str]) -> Manner:
    manner = Manner.of(args)
    return replace(manner, reason=manner.reason or f"{what} {', '.join(names) or 'everything'}")


def _wait_idle(session: Session, names: Sequence[str], timeout_seconds: float | None, out: Output) -> None:
    """Until no named replica runs a task."""
    with Signals(out) as signals:
        terms = Terms(timeout_seconds, interrupted=signals.number)
        began = terms.now()
        while True:
            replicas = session.backend.observe().replicas.values()
            busy = [one.name for one in replicas if one.busy and (not names or one.name in names or one.group in names)]
            if not busy:
                return
            if signum := terms.interrupted():
                raise Interrupted(f"interrupted while {', '.join(busy[:5])} worked", signum=signum)
            if timeout_seconds is not None and terms.now() - began > timeout_seconds:
                raise NotReady(f"still working after {timeout_seconds:g} s: {', '.join(busy[:5])}")
            terms.sleep(PAUSE_MAX_SECONDS)
