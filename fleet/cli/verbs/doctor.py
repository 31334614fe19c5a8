"""doctor: what is broken around a fleet."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fleet import settings
from fleet.cli.output import Output, painted
from fleet.cli.target import (
    applied_or_told,
    fleet_of,
    manifest_of,
    no_names,
    output_flag,
    target_flags,
    target_of,
)
from fleet.core.desired import BROKER_GROUP
from fleet.state import trust

if TYPE_CHECKING:
    from fleet.core.desired import Desired
    from fleet.operate.doctor.finding import Finding

_MARKS = {"error": ("✗", "bad"), "warning": ("!", "wait"), "info": ("·", "dim")}


def doctor_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    parser.add_argument("--fix", action="store_true", help="fix what can be fixed without losing tasks")
    output_flag(parser)


def doctor(args: argparse.Namespace, out: Output) -> int:
    """Look; with --fix, fix what can be fixed. Exit 1 while an error is left."""
    from fleet.operate.doctor.examine import examine, fix

    target = target_of(args)
    no_names(target)
    fleet = fleet_of(target, trusted=True)
    applied = applied_or_told(fleet, out)
    wanted = fleet.desired_of(manifest_of(target)) if target.sources() else None
    known = [*([wanted[0]] if wanted else []), *([applied.desired] if applied is not None else [])]
    embedded = any(BROKER_GROUP in desired.groups for desired in known)
    foreseen = _foreseen(wanted, None if applied is None or applied.down else applied.desired)
    found = [*foreseen, *examine(fleet.places, fleet.settings, embedded_wanted=embedded)]
    mended: list[str] = []
    if args.fix and any(finding.fixable for finding in found):
        trust.check(fleet.places)
        with fleet.lock():
            mended = fix(examine(fleet.places, fleet.settings, embedded_wanted=embedded))
        fleet.audit.write(*({"event": "doctor.fixed", "reason": text} for text in mended))
        found = [*foreseen, *examine(fleet.places, fleet.settings, embedded_wanted=embedded)]
    out.either(_document(fleet.name, found, mended), _text(found, mended, colour=out.colour))
    return 1 if any(finding.severity == "error" for finding in found) else 0


def _foreseen(wanted: tuple[Desired, Mapping[str, str]] | None, applied: Desired | None) -> list[Finding]:
    """What will fail when it starts: of the manifest that is named (and its secrets), else of what was applied."""
    from fleet.inputs.foreseen import foreseen, of_group
    from fleet.operate.doctor.finding import Finding

    if wanted is not None:
        found = foreseen(*wanted)
    else:
        groups = applied.groups.values() if applied is not None else ()
        found = [one for group in groups for one in of_group(group)]
    return [Finding("error" if one.group else "warning", one.group or "broker", one.message, one.hint) for one in found]


def _document(fleet: str, found: Sequence[Finding], mended: Sequence[str]) -> dict[str, Any]:
    return {
        "fleet": fleet,
        "findings": [
            {
                "severity": one.severity,
                "subject": one.subject,
                "message": one.message,
                "hint": one.hint,
                "fixable": one.fixable,
            }
            for one in found
        ],
        "fixed": list(mended),
        "settings": _settings(),
    }


def _settings() -> dict[str, Any]:
    """Every FLEET_* setting with its value now."""
    loaded = settings.load()
    return {
        f"FLEET_{field.name.upper()}": {
            "value": str(getattr(loaded, field.name)),
            "set": f"FLEET_{field.name.upper()}" in os.environ,
            "description": field.metadata["description"],
        }
        for field in fields(settings.Settings)
    }


def _text(found: Sequence[Finding], mended: Sequence[str], *, colour: bool) -> str:
    lines = [f"{painted('✓', 'good', colour=colour)} fixed  {text}" for text in mended]
    for one in found:
        mark, style = _MARKS[one.severity]
        lines.append(f"{painted(mark, style, colour=colour)} {one.subject}: {one.message}")
        hint = one.hint or ("`fleet doctor --fix` puts it right" if one.fixable else "")
        lines += [f"    hint: {hint}"] if hint else []
    if not any(one.severity != "info" for one in found):
        lines.append(f"{painted('✓', 'good', colour=colour)} nothing is wrong")
    rows = _settings()
    width = max(map(len, rows))
    lines += ["", "settings:"]
    lines += [
        f"  {name:<{width}}  {row['value'] or '-'}{'' if row['set'] else ' (default)'}  {row['description']}"
        for name, row in rows.items()
    ]
    return "\n".join(lines)
