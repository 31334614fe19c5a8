"""service: fleets that start with the machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fleet.cli.output import Output
from fleet.cli.target import fleet_for, fleet_of, manifest_of, no_names, output_flag, target_flags, target_of
from fleet.errors import UsageError

_ACTIONS = ("install", "uninstall", "status")
NOT_RUNNING = 4


def service_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of service."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    target_flags(parser)
    parser.add_argument("--user", action="store_true", help="for your own systemd instead of the machine's")
    parser.add_argument("--run-as", metavar="NAME", default="", help="whose processes they are (default: root)")
    parser.add_argument("--now", action="store_true", help="install: start it at once, too")
    parser.add_argument("--print", action="store_true", dest="print_only", help="install: print the unit, do nothing")
    parser.add_argument(
        "--env-file", metavar="FILE", action="append", default=[], help="install: variables for the fleet, NAME=value"
    )
    parser.add_argument(
        "--writable", metavar="FOLDER", action="append", default=[], help="install: with strict, also writable"
    )
    parser.add_argument(
        "--hardening", choices=("off", "standard", "strict"), default="standard", help="install: what systemd forbids"
    )
    parser.add_argument("--logs", action="store_true", help="install: the logs of replicas go to the journal, too")
    output_flag(parser)


def service(args: argparse.Namespace, out: Output) -> int:
    """Write, remove or look at the systemd unit of a fleet."""
    no_names(target_of(args))
    if args.run_as and args.user:
        raise UsageError("--user and --run-as at once", hint="your own systemd runs what is yours")
    return {"install": _install, "uninstall": _uninstall, "status": _status}[args.action](args, out)


def _install(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.service.describe import ServiceOptions, describe
    from fleet.operate.service.systemd import Systemd
    from fleet.operate.service.unit import unit_text

    loaded = manifest_of(target_of(args))
    fleet = fleet_for(loaded)
    desired, _ = fleet.desired_of(loaded)
    options = ServiceOptions(
        of_user=args.user,
        user=args.run_as,
        environment_files=tuple(str(Path(path).absolute()) for path in args.env_file),
        writable=tuple(str(Path(path).absolute()) for path in args.writable),
        hardening=args.hardening,
        run_flags=("--logs",) if args.logs else (),
    )
    made = describe(desired, loaded.origin, home=str(fleet.places.root.parent), options=options)
    text = unit_text(made)
    if args.print_only:
        out.either({"unit": made.unit, "text": text}, text)
        return 0
    systemd = Systemd(of_user=args.user)
    systemd.install(made.unit, text, start=args.now)
    path = str(systemd.file(made.unit))
    out.either({"unit": made.unit, "file": path, "started": args.now}, f"{path}: written and enabled")
    if not args.now:
        out.say(f"start it with: systemctl {'--user ' if args.user else ''}start {made.unit}")
    if args.user and not systemd.lingers():
        out.say("it starts when you log in; to start it with the machine: loginctl enable-linger")
    return 0


def _uninstall(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.service.systemd import Systemd
    from fleet.operate.service.unit import unit_name

    unit = unit_name(_named(args))
    was_there = Systemd(of_user=args.user).uninstall(unit)
    what = "stopped and removed" if was_there else "not installed"
    out.either({"unit": unit, "removed": was_there}, f"{unit}: {what}")
    return 0


def _status(args: argparse.Namespace, out: Output) -> int:
    """0 where it runs, 4 where it does not."""
    from fleet.operate.service.systemd import Systemd
    from fleet.operate.service.unit import unit_name

    unit = unit_name(_named(args))
    state = Systemd(of_user=args.user).state(unit)
    document: dict[str, Any] = {
        "unit": unit,
        "installed": state.text is not None,
        "active": state.active,
        "enabled": state.enabled,
        "pid": state.main_pid,
        "status": state.status,
        "problem": state.problem,
    }
    installed = "installed" if state.text is not None else "not installed"
    lines = [f"{unit}: {installed}, {state.active}, starts with the machine: {state.enabled}"]
    lines += [f"  {state.status}"] if state.status else []
    lines += [f"  {state.problem}"] if state.problem else []
    out.either(document, "\n".join(lines))
    return 0 if state.active.startswith("active") else NOT_RUNNING


def _named(args: argparse.Namespace) -> str:
    """A fleet may be gone, and its service be there."""
    return args.fleet or fleet_of(target_of(args)).name
