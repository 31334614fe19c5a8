"""What one group claims of the budget: its demand after hysteresis, within its bounds; and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fleet.core.autoscale.demand import Lateness, demand
from fleet.core.autoscale.load import CounterHistory, Load, Reading, load_of
from fleet.core.autoscale.parameters import Parameters, ScaledGroup
from fleet.core.autoscale.sample import Sample
from fleet.core.text.format import duration, listed

_MOMENTS = ("worked_at", "calm_at", "recalled_at", "missing_since", "short_since", "content_since", "empty_at")


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """What is remembered of one group.

    wants: (time, want) pairs of its window.  calm_at: no slots go before then, because of a burst.
    recalled_at: when slots it held were last called back.  short_since: since when it has had less than it wants,
    brief moments of content_since not counted.  empty_at: when nothing was seen to wait last.
    """

    track: CounterHistory = field(default_factory=CounterHistory)
    lateness: Lateness = field(default_factory=Lateness)
    wants: tuple[tuple[float, int], ...] = ()
    worked_at: float = 0.0
    calm_at: float | None = None
    recalled_at: float | None = None
    missing_since: float | None = None
    short_since: float | None = None
    content_since: float | None = None
    empty_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; ``decoded`` reads it back to an equal value."""
        return {
            "track": self.track.to_json(),
            "lateness": [self.lateness.age_seconds, self.lateness.looks],
            "wants": [list(pair) for pair in self.wants],
            **{name: getattr(self, name) for name in _MOMENTS},
        }


@dataclass(frozen=True, slots=True)
class Context:
    """When and by which constants is decided. ``is_starting``: too early to let slots go."""

    now: float
    parameters: Parameters
    is_starting: bool


@dataclass(frozen=True, slots=True)
class Levels:
    """Slots up to which the budget is filled for one group, in whole units: floor <= need <= want <= hold.

    floor: no other group may take these.  need: enough for its target.  want: enough with room, as far as hysteresis
    lets it rise.  hold: what it has and hysteresis does not let go yet.
    """

    floor: int
    need: int
    want: int
    hold: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What one group asks for.

    has: slots now.  fair: its static share.  top: the most it could get.  wanted: slots before hysteresis.  why: in
    words, with the figures.  load: None where metrics are missing.
    """

    group: ScaledGroup
    has: int
    fair: int
    top: int
    wanted: int
    levels: Levels
    memory: GroupMemory
    why: str
    load: Load | None = None

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def is_burst(self) -> bool:
        """Whether more arrives than chance explains."""
        return self.load is not None and self.load.is_burst

    def short_since(self, now: float) -> float | None:
        """Since when it has had less than it wants; None while it has enough."""
        if self.has >= self.levels.want:
            return None
        return now if self.memory.short_since is None else self.memory.short_since


def claim(group: ScaledGroup, sample: Sample, memory: GroupMemory, context: Context, *, fair: int, top: int) -> Claim:
    """The claim of one group. ``fair``: its static share; ``top``: the most it could ever get."""
    if sample.missing:
        return _claim_without_metrics(group, sample, memory, context, fair=fair, top=top)
    memory, load = _with_sample(memory, group, sample, context)
    asked = demand(group, sample, load, memory.lateness, context.parameters)
    want = _awake(group, memory, asked.want, context)
    memory = replace(memory, wants=_within_window(group, (*memory.wants, (context.now, want)), context))
    steady = _with_hysteresis(sample.has, want, asked.urgent, memory, context)
    return Claim(
        group,
        sample.has,
        fair,
        top,
        wanted=group.bounded(want, most=top),
        levels=_levels(group, top, need=asked.need, want=want, steady=steady),
        memory=memory,
        why=f"{asked.why}: {load}",
        load=load,
    )


def _levels(group: ScaledGroup, top: int, *, need: int, want: int, steady: int) -> Levels:
    """In whole units and in order. ``steady``: the want after hysteresis; one unit of it is as safe as the minimum."""
    hold = group.bounded(steady, most=top)
    floor = min(hold, max(group.floor, group.share.unit if steady else 0))
    wanted = max(floor, min(hold, group.bounded(want, most=top)))
    return Levels(floor, max(floor, min(wanted, group.bounded(need, most=top))), wanted, hold)


def _with_sample(memory: GroupMemory, group: ScaledGroup, sample: Sample, context: Context) -> tuple[GroupMemory, Load]:
    """The memory with one more sample, and the load that it shows."""
    now, parameters = context.now, context.parameters
    blur = sample.ready + sample.draining
    history = memory.track.then(Reading.of(sample, now), window_seconds=parameters.window_seconds, blur=blur)
    load = load_of(history, group, parameters)
    works = bool(sample.queue or sample.busy or history.just_came)
    memory = replace(
        memory,
        track=history,
        lateness=memory.lateness.then(_credible_age_seconds(sample, memory, now), group.target_wait_seconds),
        empty_at=memory.empty_at if sample.queue else now,
        missing_since=None,
        worked_at=now if works else memory.worked_at,
        calm_at=now + parameters.window_seconds if load.is_burst else memory.calm_at,
    )
    return memory, load


def _credible_age_seconds(sample: Sample, memory: GroupMemory, now: float) -> float | None:
    """The measured age, which rests on the word of senders; nothing waits for longer than since nothing waited."""
    age = sample.measured_age_seconds
    return age if age is None or memory.empty_at is None else min(age, max(0.0, now - memory.empty_at))


def _awake(group: ScaledGroup, memory: GroupMemory, want: int, context: Context) -> int:
    """A group that may go to zero does so after a time without work, and never while there is some."""
    if group.share.min > 0:
        return want
    return max(want, 1) if context.now - memory.worked_at < group.idle_after_seconds else 0


def _within_window(
    group: ScaledGroup, wants: tuple[tuple[float, int], ...], context: Context
) -> tuple[tuple[float, int], ...]:
    start = context.now - context.parameters.patience_seconds(group)
    return tuple(pair for pair in wants if pair[0] >= start)


def _with_hysteresis(has: int, want: int, urgent: int, memory: GroupMemory, context: Context) -> int:
    """Up: what is urgent at once, the rest when it lasts. Down: to the most it wanted for a while, never in a burst."""
    parameters, now = context.parameters, context.now
    slack = parameters.tolerance * has
    if want > has:
        if not has:
            return want
        lasting = min(want for at, want in memory.wants if at >= now - parameters.up_hold_seconds)
        return max(has, urgent, lasting if lasting - has > slack else has)
    if context.is_starting or (memory.calm_at is not None and now < memory.calm_at):
        return has
    top = min(has, max(want for _, want in memory.wants))
    return has if top and has - top <= slack else top


def _claim_without_metrics(
    group: ScaledGroup, sample: Sample, memory: GroupMemory, context: Context, *, fair: int, top: int
) -> Claim:
    """It keeps what it has, and after a time (or at once, if the manifest says so) goes to its static share."""
    since = context.now if memory.missing_since is None else memory.missing_since
    patience = 0.0 if group.on_missing_metrics == "static" else context.parameters.static_after_seconds
    gone = context.now - since
    lost = f"no metrics ({listed(sample.missing)})"
    why = f"{lost}: held for {duration(round(patience - gone))}, then its static share"
    slots = sample.has
    if gone >= patience:
        slots, why = fair, f"{lost}: static share"
    slots = max(group.floor, min(slots // group.share.unit * group.share.unit, top))
    memory = replace(memory, missing_since=since, track=CounterHistory(), lateness=Lateness(), wants=())
    return Claim(group, sample.has, fair, top, slots, Levels(slots, slots, slots, slots), memory, why)
