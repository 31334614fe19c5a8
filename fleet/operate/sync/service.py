"""``fleet sync run``: both loops side by side, so that neither a slow repository nor a long rollout holds the other up.

Nothing is kept in memory that matters: it may be killed at any moment, and the next one goes on from the disk.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import traceback
from collections.abc import Callable

from fleet.errors import FleetError, Interrupted
from fleet.operate.sync.conditions import Conditions
from fleet.operate.sync.following import Following
from fleet.operate.sync.git import Ended
from fleet.operate.sync.pacing import pause_seconds
from fleet.operate.sync.receiver import Receiver
from fleet.operate.sync.source import pacing_of
from fleet.operate.sync.state import Fetched, Reconciled
from fleet.operate.sync.telling import Telling, said

_SLICE_SECONDS = 0.25
_LEAST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 60.0
"""Between two looks at the fleet: a window opens and a suspension ends at a moment, not at an interval."""


class Service:
    """The loops of one source. ``say``: one line of the log."""

    def __init__(
        self,
        following: Following,
        telling: Telling,
        *,
        receiver: Callable[[Callable[[], None]], Receiver] | None = None,
        say: Callable[[str], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.following = following
        self.telling = telling
        self.stop = threading.Event()
        self._receiver = receiver
        self._say = say
        self._chance = chance
        self._pacing = pacing_of(following.source.spec)
        self._look_now = threading.Event()
        self._fleet_now = threading.Event()
        self._tell_now = threading.Event()
        self._last: dict[str, str] = {}

    def look_now(self) -> None:
        """Ask for a look at the repository; harmless however often it is asked."""
        self._look_now.set()

    # --- once

    def once(self, *, interrupted: Callable[[], int]) -> tuple[Fetched, Reconciled]:
        """One look of each loop, in order."""
        self.following.revisions.prepare()
        fetched = self.following.fetch()
        reconciled = self.following.look(interrupted=interrupted)
        with contextlib.suppress(FleetError):
            self._tell()
        return fetched, reconciled

    # --- for ever

    def run(self, *, interrupted: Callable[[], int]) -> None:
        """Until ``stop`` is set. The fleet is looked after in this thread, the repository in another."""
        self.following.revisions.prepare()
        self.following.revisions.repository.is_over = self.stop.is_set
        threads = [
            threading.Thread(target=self._loop, args=(self._fetch_look, self._look_now), name="fetch", daemon=True),
            threading.Thread(target=self._loop, args=(self._tell_look, self._tell_now), name="tell", daemon=True),
        ]
        with self._receiver(self.look_now) if self._receiver is not None else contextlib.nullcontext():
            for thread in threads:
                thread.start()
            try:
                self._loop(lambda: self._fleet_look(interrupted), self._fleet_now)
            finally:
                self.stop.set()
                for thread in threads:
                    thread.join(self.following.source.spec.git.timeout)

    def _loop(self, look: Callable[[], float], now: threading.Event) -> None:
        """Look, pause, look. What nobody expected is told with its traceback, and the loop goes on."""
        failures = 0
        while not self.stop.is_set():
            now.clear()
            try:
                pause = look()
                failures = 0
            except (Interrupted, Ended):
                return
            except Exception as error:
                failures += 1
                text = said(error) if isinstance(error, FleetError) else traceback.format_exc()
                self._say(f"error: {text}")
                pause = pause_seconds(self._pacing, failures=failures, chance=self._chance())
            self._wait(now, pause)

    def _wait(self, now: threading.Event, seconds: float) -> None:
        end = time.monotonic() + max(seconds, _LEAST_PAUSE_SECONDS)
        while not self.stop.is_set():
            left = end - time.monotonic()
            if left <= 0 or now.wait(min(left, _SLICE_SECONDS)):
                return
            if now is self._look_now and self._is_nudged():
                return

    def _is_nudged(self) -> bool:
        """Somebody asked for a look on this machine: ``fleet sync now``."""
        try:
            self.following.places.nudge.unlink()
        except OSError:
            return False
        return True

    def _fetch_look(self) -> float:
        state = self.following.fetch()
        self._tell_changes(state.conditions)
        self._fleet_now.set()
        self._tell_now.set()
        return pause_seconds(self._pacing, failures=state.failures, chance=self._chance())

    def _fleet_look(self, interrupted: Callable[[], int]) -> float:
        state = self.following.look(interrupted=interrupted)
        self._tell_changes(state.conditions)
        self._tell_now.set()
        return min(LONGEST_PAUSE_SECONDS, pause_seconds(self._pacing, failures=state.failures, chance=self._chance()))

    def _tell_look(self) -> float:
        self._tell()
        return LONGEST_PAUSE_SECONDS

    def _tell(self) -> None:
        try:
            self.telling.look()
        except FleetError as error:
            self._say(f"cannot tell others: {said(error)}")
            raise

    def _tell_changes(self, conditions: Conditions) -> None:
        """A line for each stage that changed: this is the log of the service."""
        for one in conditions.all():
            text = f"{one.stage} {one.status_text}"
            if one.reason != "NotReached" and self._last.get(one.stage) != text:
                self._last[one.stage] = text
                self._say(text)
