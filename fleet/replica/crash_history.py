"""The crash history of a replica: when its processes started and ended, and how long to wait before the next start.

supervisord has no back-off once a program has run for ``startsecs``, and gives up for good before that. So the
launcher keeps this small file and decides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from fleet.core.backoff import backoff_seconds
from fleet.core.spec import RestartPolicy
from fleet.core.text.format import duration
from fleet.file_access import NAMED_BYTES, open_own, read_file

STEADY_SECONDS = 10.0
LOOP_SECONDS = 60.0
CRASHES_OF_A_LOOP = 2
MOST_DEATHS = 1_000
"""How many tasks are kept that ran when their worker died."""


@dataclass(frozen=True, slots=True)
class Life:
    """One earlier process of a replica: when it started and when its end was seen (Unix seconds), whether it exited
    cleanly, and whether it had finished a task by then."""

    began: float
    ended: float
    clean: bool = False
    worked: bool = False

    @property
    def is_crash(self) -> bool:
        """A clean exit after a task, or after STEADY_SECONDS, is no crash: a solo worker is replaced when a task
        exceeds its hard limit. A clean exit right after the start counts as one."""
        return not (self.clean and (self.worked or self.ended - self.began >= STEADY_SECONDS))


def pause_seconds(lives: Sequence[Life], policy: RestartPolicy, *, now: float) -> float | None:
    """How long to wait before the next start; None: too many crashes, park."""
    crashes = [life for life in lives if life.is_crash and life.ended > now - policy.window_seconds]
    if len(crashes) > policy.max_crashes:
        return None
    short = 0
    for life in reversed(crashes):
        if life.ended - life.began > policy.backoff_max_seconds:  # it had recovered
            break
        short += 1
    if not crashes or not lives[-1].is_crash:
        return 0.0
    return backoff_seconds(
        short - 1, initial_seconds=policy.backoff_initial_seconds, max_seconds=policy.backoff_max_seconds
    )


def crash_loop(lives: Sequence[Life], policy: RestartPolicy, *, began: float, now: float) -> str:
    """Why a program that began at ``began`` cannot be trusted yet, or ''.

    After two short lives that ended in a crash it must live longer than the last of them did.
    """
    crashes = [one for one in lives if one.ended > now - policy.window_seconds]
    short = list(takewhile(lambda one: one.is_crash and one.ended - one.began < LOOP_SECONDS, reversed(crashes)))
    if len(short) < CRASHES_OF_A_LOOP:
        return ""
    must_live = max(STEADY_SECONDS, short[0].ended - short[0].began)
    if now - began > must_live:
        return ""
    return f"crashed {len(short)} times, last after {duration(max(0, round(short[0].ended - short[0].began)))}"


@dataclass(frozen=True, slots=True)
class History:
    """What is kept of a replica's earlier processes.

    lives: the ended ones.  began: start of the one whose end has not been seen.  deaths: task id -> how many processes
    ended while that task ran; for brokers that do not count deliveries, so that a task that kills its worker is not
    run again without end.
    """

    lives: tuple[Life, ...] = ()
    began: float | None = None
    deaths: Mapping[str, int] = field(default_factory=dict)

    def after_crash(self, task_ids: Iterable[str]) -> History:
        """Counts one death for each of these tasks; keeps the MOST_DEATHS that were seen last."""
        deaths = dict(self.deaths)
        for task_id in task_ids:
            deaths[task_id] = deaths.pop(task_id, 0) + 1
        return replace(self, deaths=dict(list(deaths.items())[-MOST_DEATHS:]))


def read_history(path: Path) -> History:
    """The history at ``path``; an empty one where the file cannot be read."""
    try:
        values = json.loads(read_file(path, limit_bytes=NAMED_BYTES))
        lives = tuple(Life(float(began), float(ended), *map(bool, rest)) for began, ended, *rest in values["lives"])
        deaths = {str(task_id): int(count) for task_id, count in values.get("deaths", {}).items()}
        return History(lives, None if values["began"] is None else float(values["began"]), deaths)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return History()


def write_history(path: Path, history: History) -> None:
    """Replace the file in one step, without fsync: it is written often, and losing it costs little."""
    lives = [list(astuple(life)) for life in history.lives]
    values = {"began": history.began, "lives": lives, "deaths": dict(history.deaths)}
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(open_own(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
        json.dump(values, file)
    os.replace(fresh, path)
