"""notify: whether notifications arrive, and a sample to everybody who is told."""

from __future__ import annotations

import argparse
from typing import Any

from fleet.cli.output import Output
from fleet.cli.target import fleet_for, fleet_of, manifest_of, no_names, output_flag, target_flags, target_of
from fleet.core.text.format import counted
from fleet.errors import UsageError

_ACTIONS = ("test", "status", "send")
NOT_ARRIVED = 1


def notify_flags(parser: argparse.ArgumentParser) -> None:
    what = "test: send a sample; status: what waits, and why; send: what waits, now"
    parser.add_argument("action", choices=_ACTIONS, help=what)
    target_flags(parser)
    output_flag(parser)


def notify(args: argparse.Namespace, out: Output) -> int:
    """Send a sample to every receiver, or say what waits."""
    no_names(target_of(args))
    return {"test": _test, "status": _status, "send": _send}[args.action](args, out)


def _test(args: argparse.Namespace, out: Output) -> int:
    """Through the same doors as the real ones, at once, and without the spool."""
    from fleet.inputs.facts import secret_values
    from fleet.operate.notify.errors import NotSent
    from fleet.operate.notify.notifier import send
    from fleet.operate.notify.sending import receivers_of
    from fleet.operate.notify.spool import sample

    target = target_of(args)
    loaded = manifest_of(target)
    fleet = fleet_of(target) if target.fleet else fleet_for(loaded)
    if not loaded.manifest.spec.notify:
        hint = "write spec.notify, see docs/notifications.md"
        raise UsageError(f"the manifest of {loaded.name!r} has no notifications", hint=hint)
    values = secret_values(loaded)
    receivers = receivers_of(loaded, lambda: values)
    rows: list[dict[str, Any]] = []
    for index, notification in enumerate(receivers.notifications):
        row: dict[str, Any] = {"notification": f"spec.notify[{index}]", "way": next(iter(notification.ways()))}
        try:
            send(notification, sample(notification, now=fleet.now()), fleet=fleet.name, receivers=receivers)
        except NotSent as error:
            rows.append({**row, "sent": False, "error": error.message})
        else:
            rows.append({**row, "sent": True, "error": ""})
    out.either({"fleet": fleet.name, "results": rows}, "\n".join(map(_line, rows)))
    return 0 if all(row["sent"] for row in rows) else NOT_ARRIVED


def _send(args: argparse.Namespace, out: Output) -> int:
    """What is new in the audit, and what waits, as the controller does it; with the secrets that it was given."""
    from fleet.inputs.facts import secret_values
    from fleet.operate.notify.notifier import Notifier
    from fleet.operate.notify.sending import receivers_of, secrets_of_controller

    fleet = fleet_of(target_of(args))
    loaded = fleet.applied_manifest()
    given = secrets_of_controller(fleet.places)
    receivers = receivers_of(loaded, lambda: secret_values(loaded, given=given))
    if receivers.notifications:
        Notifier(fleet.places, receivers, now=fleet.now).look()
    return _status(args, out)


def _line(row: dict[str, Any]) -> str:
    return f"{row['notification']} ({row['way']}): " + ("sent" if row["sent"] else f"not sent: {row['error']}")


def _status(args: argparse.Namespace, out: Output) -> int:
    from fleet.operate.notify.overview import summary
    from fleet.operate.notify.spool_file import read_spool

    target = target_of(args)
    places = fleet_of(target).places
    found, spool = summary(places), read_spool(places)
    lines = [
        f"{counted(found['sent'], 'message')} sent, {found['waiting']} waiting, {found['dropped']} given up",
        *(
            f"{one.way}: {one.news.kind} {one.news.replica}".rstrip() + f": {one.error or 'not tried yet'}"
            for one in spool.failing
        ),
        *([f"last attempt: {spool.error}"] if spool.error else []),
    ]
    out.either({"fleet": places.fleet, **found}, "\n".join(lines))
    return NOT_ARRIVED if spool.error else 0
