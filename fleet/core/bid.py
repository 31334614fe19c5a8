"""What one group asks of the budget: its demand, calmed by hysteresis, within its bounds; and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fleet.core.need import Demand, Lateness, demand
from fleet.core.pace import Pace, Reading, Track, pace
from fleet.core.samples import Sample
from fleet.core.scaling import Scaled, Tuning
from fleet.core.wording import duration, listed

_MOMENTS = ("worked_at", "calm_at", "recalled_at", "missing_since", "short_since", "content_since")


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """What is remembered of one group.

    wants: (time, want) pairs of its window.  calm_at: no slots go before then, because of a burst.
    recalled_at: when slots it held were last called back.  short_since: since when it has had less than it wants,
    brief moments of content_since not counted.
    """

    track: Track = field(default_factory=Track)
    lateness: Lateness = field(default_factory=Lateness)
    wants: tuple[tuple[float, int], ...] = ()
    worked_at: float = 0.0
    calm_at: float | None = None
    recalled_at: float | None = None
    missing_since: float | None = None
    short_since: float | None = None
    content_since: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; ``decoded`` reads it back to an equal value."""
        return {
            "track": self.track.to_json(),
            "lateness": [self.lateness.age_seconds, self.lateness.looks],
            "wants": [list(pair) for pair in self.wants],
            **{name: getattr(self, name) for name in _MOMENTS},
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """When and by which constants is decided. ``is_starting``: too early to let slots go."""

    now: float
    tuning: Tuning
    is_starting: bool


@dataclass(frozen=True, slots=True)
class Bid:
    """What one group asks for, in whole units and within its bounds.

    has: slots now.  fair: its static share.  top: the most it could get.  floor: what nobody may take.
    need <= keep <= cap: the layers above it.  want: before hysteresis.  why: in words, with the figures.
    """

    group: Scaled
    has: int
    fair: int
    top: int
    floor: int
    need: int
    want: int
    keep: int
    cap: int
    memory: GroupMemory
    why: str
    pace: Pace | None = None

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name

    @property
    def is_burst(self) -> bool:
        """Whether more arrives than chance explains."""
        return self.pace is not None and self.pace.is_burst

    def short_since(self, now: float) -> float | None:
        """Since when it has had less than it would keep."""
        if self.has >= self.keep:
            return None
        return now if self.memory.short_since is None else self.memory.short_since


def bid(group: Scaled, sample: Sample, memory: GroupMemory, moment: Moment, *, fair: int, top: int) -> Bid:
    """The bid of one group. ``fair``: its static share; ``top``: the most it could ever get."""
    if sample.missing:
        return _blind(group, sample, memory, moment, fair=fair, top=top)
    memory, found, seen = _look(group, sample, memory, moment)
    want = _awake(group, memory, found.want, moment)
    memory = replace(memory, wants=_within_window(group, (*memory.wants, (moment.now, want)), moment))
    calmed = _calmed(sample.has, want, found.urgent, memory, moment)
    unit = group.share.unit

    def fit(slots: int) -> int:
        return max(group.floor, min(-(-slots // unit) * unit, top))

    cap, wanted = fit(calmed), fit(want)
    floor = min(cap, max(group.floor, unit if calmed else 0))
    keep = max(floor, min(cap, wanted))
    need = max(floor, min(keep, fit(found.need)))
    why = f"{found.why}: {seen}"
    return Bid(group, sample.has, fair, top, floor, need, wanted, keep, cap, memory, why, seen)


def _look(group: Scaled, sample: Sample, memory: GroupMemory, moment: Moment) -> tuple[GroupMemory, Demand, Pace]:
    """Remember the sample, and say what it asks for."""
    now, tuning = moment.now, moment.tuning
    blur = sample.ready + sample.draining
    track = memory.track.then(Reading.of(sample, now), window_seconds=tuning.window_seconds, blur=blur)
    lateness = memory.lateness.then(sample.measured_age_seconds, group.target_wait_seconds)
    seen = pace(track, group, tuning)
    works = bool(sample.queue or sample.busy or track.just_came)
    memory = replace(
        memory,
        track=track,
        lateness=lateness,
        missing_since=None,
        worked_at=now if works else memory.worked_at,
        calm_at=now + tuning.window_seconds if seen.is_burst else memory.calm_at,
    )
    return memory, demand(group, sample, seen, lateness, tuning), seen


def _awake(group: Scaled, memory: GroupMemory, want: int, moment: Moment) -> int:
    """A group that may go to zero does so after a time without work, and never while there is some."""
    if group.share.min > 0:
        return want
    return max(want, 1) if moment.now - memory.worked_at < group.idle_after_seconds else 0


def _within_window(
    group: Scaled, wants: tuple[tuple[float, int], ...], moment: Moment
) -> tuple[tuple[float, int], ...]:
    start = moment.now - moment.tuning.patience_seconds(group)
    return tuple(pair for pair in wants if pair[0] >= start)


def _calmed(has: int, want: int, urgent: int, memory: GroupMemory, moment: Moment) -> int:
    """Up: what is urgent at once, the rest when it lasts. Down: to the most it wanted for a while, never in a burst."""
    tuning, now = moment.tuning, moment.now
    slack = tuning.tolerance * has
    if want > has:
        if not has:
            return want
        lasting = min(want for at, want in memory.wants if at >= now - tuning.up_hold_seconds)
        return max(has, urgent, lasting if lasting - has > slack else has)
    if moment.is_starting or (memory.calm_at is not None and now < memory.calm_at):
        return has
    top = min(has, max(want for _, want in memory.wants))
    return has if top and has - top <= slack else top


def _blind(group: Scaled, sample: Sample, memory: GroupMemory, moment: Moment, *, fair: int, top: int) -> Bid:
    """Without metrics it stands, and after a time (or at once, if the manifest says so) goes to its static share."""
    since = moment.now if memory.missing_since is None else memory.missing_since
    patience = 0.0 if group.on_missing_metrics == "static" else moment.tuning.static_after_seconds
    gone = moment.now - since
    lost = f"no metrics ({listed(sample.missing)})"
    why = f"{lost}: held for {duration(round(patience - gone))}, then its static share"
    slots = sample.has
    if gone >= patience:
        slots, why = fair, f"{lost}: static share"
    slots = max(group.floor, min(slots // group.share.unit * group.share.unit, top))
    memory = replace(memory, missing_since=since, track=Track(), lateness=Lateness(), wants=())
    return Bid(group, sample.has, fair, top, slots, slots, slots, slots, slots, memory, why)
