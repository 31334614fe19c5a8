"""A simulated run as a picture: the only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.core.simulation.engine import Outcome
from fleet.errors import FleetError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_COLOURS = (
    "#1f6f8b",
    "#e07a5f",
    "#81b29a",
    "#f2cc8f",
    "#6d597a",
    "#3d405b",
    "#b56576",
    "#8ab17d",
    "#457b9d",
    "#bc6c25",
)
_HOUR = 3600.0


def check(path: str) -> None:
    """Raise before a long run what would be raised after it: a wrong kind of file, no folder, no matplotlib."""
    if not path.endswith(SUFFIXES):
        raise UsageError(
            f"{path} is not a kind of picture that fleet can draw",
            hint=f"a name that ends with {' or '.join(SUFFIXES)}",
        )
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {Path(path).absolute().parent}")
    _figure()


def draw(outcome: Outcome, path: str, *, title: str, budget: int, targets: Mapping[str, float]) -> None:
    """Slots per group over time, and the age of each oldest task against its target. Needs a timeline."""
    figure = _figure()
    slots, waits = figure.subplots(2, 1, sharex=True)
    hours = outcome.timeline[-1][0] > 2 * _HOUR if outcome.timeline else False
    moments = [now / (_HOUR if hours else 60.0) for now, _ in outcome.timeline]
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(outcome.groups)}
    _slots(slots, outcome, moments, colours, budget)
    _waits(waits, outcome, moments, colours, targets)
    slots.set_title(title, loc="left", fontsize=10)
    waits.set_xlabel("hours" if hours else "minutes")
    for axes in (slots, waits):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.margins(x=0)
    _save(figure, path)


def _slots(axes: Axes, outcome: Outcome, moments: list[float], colours: Mapping[str, str], budget: int) -> None:
    rows = [
        [looks[name].ready + looks[name].starting + looks[name].draining for _, looks in outcome.timeline]
        for name in outcome.groups
    ]
    shown: Any = rows
    axes.stackplot(
        moments, shown, labels=list(outcome.groups), colors=[colours[name] for name in outcome.groups], step="post"
    )
    axes.axhline(budget, color="#444444", linewidth=0.8, linestyle="--")
    axes.set_ylabel("slots")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False, reverse=True)


def _waits(
    axes: Axes, outcome: Outcome, moments: list[float], colours: Mapping[str, str], targets: Mapping[str, float]
) -> None:
    """Draw ages divided by each group's target, so that one line is the limit of all groups."""
    for name in outcome.groups:
        ages = [looks[name].oldest_age_seconds / targets[name] for _, looks in outcome.timeline]
        axes.plot(moments, ages, color=colours[name], linewidth=1.0)
    axes.axhline(1.0, color="#444444", linewidth=0.8, linestyle="--")
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axes.set_ylabel("oldest waiting task / targetWait", fontsize=8)


def _figure() -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = "pip install 'workerfleet[pictures]'"
        raise FleetError("a picture needs matplotlib, which is not installed", hint=hint) from error
    return Figure(figsize=(11, 6), layout="constrained")


def _save(figure: Figure, path: str) -> None:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise FleetError(f"{path} cannot be written: {error.strerror or error}") from error
