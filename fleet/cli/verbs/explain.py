"""explain: why each group has its slots, replicas and concurrency."""

from __future__ import annotations

import argparse
import shutil
from typing import TYPE_CHECKING, Any

from fleet.cli.graph import slots_picture
from fleet.cli.output import Output
from fleet.cli.target import fleet_for, fleet_of, manifest_of, no_names, output_flag, target_flags, target_of
from fleet.cli.view import look_text
from fleet.core.expand import explain as explanation

if TYPE_CHECKING:
    from fleet.core.desired import Desired
    from fleet.core.expand.sizing import Division
    from fleet.inputs.manifest import LoadedManifest
    from fleet.operate.local_fleet import LocalFleet

_FRESH_TICKS = 3.0
_FRESH_SECONDS = 5.0


def explain_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    parser.add_argument("--live", action="store_true", help="what the controller sees and decides now, group by group")
    parser.add_argument(
        "--picture", action="store_true", help="bars: who has slots and, with --live, who needs and waits"
    )
    output_flag(parser)


def explain(args: argparse.Namespace, out: Output) -> int:
    """The shape of every group with its reason."""
    target = target_of(args)
    no_names(target)
    if args.live:
        return _explain_live(fleet_of(target), out, picture=args.picture)
    loaded = manifest_of(target)
    fleet = fleet_for(loaded)
    desired, _ = fleet.desired_of(loaded)
    if args.picture and not out.is_json:
        out.facts(_picture(_rows(desired), desired.budgets.slots, out))
        return 0
    division = _division(fleet, loaded, desired)
    out.either(
        explanation.document(desired, division),
        explanation.text(desired, division, moved=fleet.overrides_in_force().slots),
    )
    return 0


def _division(fleet: LocalFleet, loaded: LoadedManifest, desired: Desired) -> Division | None:
    """How the slots left by fixed groups were divided, with live exceptions applied."""
    from fleet.core.expand.expand import static_division

    return static_division(loaded.manifest, desired, overrides=fleet.overrides_in_force())


def _explain_live(fleet: LocalFleet, out: Output, *, picture: bool) -> int:
    """What the controller saw and decided last; where it does not run, what it would decide now."""
    document = _last(fleet)
    note = ""
    if document is None:
        document = _would_be(fleet)
        note = "the controller does not run: this is what it would decide now"
    if out.is_json:
        out.document({"fleet": fleet.name, "running": not note, **document})
        return 0
    for line in (note, document["note"]):
        if line:
            out.say(f"note: {line}")
    if picture:
        out.facts(_picture(_live_rows(document), document["budget"], out))
    else:
        out.facts(look_text(document, colour=out.colour))
    return 0


def _picture(rows: list[dict[str, Any]], budget: int | None, out: Output) -> str:
    return slots_picture(rows, budget=budget, width=shutil.get_terminal_size().columns, colour=out.colour)


def _rows(desired: Desired) -> list[dict[str, Any]]:
    groups = [group for _, group in sorted(desired.groups.items()) if not group.system]
    return [{"name": group.name, "has": group.slots, "needs": None, "wants": None} for group in groups]


def _live_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "has": row["has"], "needs": row["need"], "wants": row["wants"]}
        for name, row in document["groups"].items()
    ]


def _last(fleet: LocalFleet) -> dict[str, Any] | None:
    from fleet.operate.controller.memory_file import last_look

    applied, document = fleet.applied(), last_look(fleet.places.controller)
    if document is None or applied is None or applied.down:
        return None
    age = fleet.now() - float(document["at"])
    return document if age < _FRESH_TICKS * float(document["tickSeconds"]) + _FRESH_SECONDS else None


def _would_be(fleet: LocalFleet) -> dict[str, Any]:
    from fleet.operate.controller.loop import Controller

    loop = Controller(fleet)
    try:
        return loop.look().look.to_json()
    finally:
        loop.close()
