"""One thread reads all fleets once a second and tells every page that follows; nobody follows, and it reads seldom."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from fleet.errors import FleetError
from fleet.operate.dashboard.following import FleetFollower
from fleet.operate.dashboard.hour import EVERY_SECONDS
from fleet.operate.dashboard.rows import problem_head
from fleet.operate.dashboard.shown import shown, shown_json

_LOG = logging.getLogger("fleet.dashboard")
LOOK_SECONDS = 1.0
MOST_BEHIND = 20
"""A page that has so many updates still to read is let go; it comes back and begins with a whole picture."""
MOST_FOLLOWERS = 100
_BREATH_SECONDS = 0.2
ALL = ""
"""The topic of the page that shows all fleets."""

Text = str


class TooMany(FleetError):
    """So many pages follow already."""


class Follower:
    """One page that follows a fleet, or ALL. ``next`` is awaited in the event loop."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.has_begun = False
        self._waiting: asyncio.Queue[Text | None] = asyncio.Queue()

    async def next(self) -> Text | None:
        """The next document as JSON; None when it is over."""
        return await self._waiting.get()

    def give(self, text: Text | None) -> bool:
        """False for a page that does not keep up."""
        if text is not None and self._waiting.qsize() >= MOST_BEHIND:
            return False
        self._waiting.put_nowait(text)
        return True


class Live:
    """Reads while it runs. Followers come and go in the event loop that ``start`` is called in."""

    def __init__(
        self,
        names: Callable[[], list[str]],
        follow: Callable[[str], FleetFollower],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """names: the fleets there are.  follow: makes the follower of one; may raise FleetError."""
        self._names = names
        self._follow = follow
        self._look_seconds = look_seconds
        self._fleets: dict[str, FleetFollower] = {}
        self._refused: dict[str, str] = {}
        self._heads: dict[str, Any] = {}
        self._followers: set[Follower] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = threading.Event()
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="dashboard-reader", daemon=True)

    # --- in the event loop

    def start(self) -> None:
        """Begin to read."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Tell every page that it is over, and stop reading."""
        self._over.set()
        self._wanted.set()
        for follower in self._followers:
            follower.give(None)
        self._followers.clear()
        self._thread.join()

    def begin(self, topic: str) -> Follower:
        """Follow a fleet, or ALL: first the whole of it, then what changes. Raises TooMany."""
        if len(self._followers) >= MOST_FOLLOWERS:
            raise TooMany(f"{MOST_FOLLOWERS} pages follow already", hint="close some of them")
        follower = Follower(topic)
        self._followers.add(follower)
        self._wanted.set()
        return follower

    def end(self, follower: Follower) -> None:
        """It is gone."""
        self._followers.discard(follower)

    # --- by any thread

    def whole(self, topic: str) -> dict[str, Any]:
        """All that is known now."""
        with self._lock:
            if topic == ALL:
                return {"whole": True, "at": time.time(), "fleets": dict(self._heads)}
            one = self._fleets.get(topic)
        nothing = {"head": problem_head(topic, self._refused.get(topic, "")), "groups": {}}
        picture = one.picture.document() if one is not None else nothing
        return {"whole": True, "at": time.time(), **shown({"replicas": {}, "queues": {}, **picture})}

    def hour(self, name: str) -> dict[str, Any] | None:
        """The last hour of a fleet; None where it is not known."""
        with self._lock:
            one = self._fleets.get(name)
        return one.hour.document() if one is not None else None

    # --- in the thread

    def look(self) -> None:
        """Read what is due, and tell those who follow: the whole to those who came since the last look."""
        followers = tuple(self._followers)
        topics = {one.topic for one in followers}
        new = frozenset(one for one in followers if not one.has_begun)
        told: dict[str, dict[str, Any]] = {}
        known = self._known()
        heads: dict[str, Any] = {name: problem_head(name, why) for name, why in self._refused.items()}
        for name in known:
            one = self._fleets[name]
            difference = one.look(followed=name in topics or ALL in topics)
            heads[name] = shown(one.picture.head)
            told[name] = difference if name in topics else {}
        with self._lock:
            before, self._heads = self._heads, heads
        fresh = {name: head for name, head in heads.items() if before.get(name) != head}
        told[ALL] = {"fleets": fresh, "fleetsGone": sorted(before.keys() - heads.keys())}
        for topic in topics:
            self._tell(topic, told.get(topic, {}), new)

    def _known(self) -> list[str]:
        names = self._names()
        for gone in self._refused.keys() - set(names):
            del self._refused[gone]
        with self._lock:
            for gone in self._fleets.keys() - set(names):
                self._fleets.pop(gone).close()
        for name in [one for one in names if one not in self._fleets]:
            try:
                made = self._follow(name)
            except FleetError as error:  # its files could be another account's
                self._refused[name] = error.message
                continue
            self._refused.pop(name, None)
            with self._lock:
                self._fleets[name] = made
        return [name for name in names if name in self._fleets]

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._wanted.clear()
            try:
                self.look()
            except Exception:  # a reader that ends would leave pages that look alive
                _LOG.exception("the dashboard could not look at its fleets")
            pause = self._look_seconds if self._followers else EVERY_SECONDS
            if self._wanted.wait(max(0.0, began + pause - time.monotonic())):
                self._over.wait(_BREATH_SECONDS)  # pages that come and go in a loop cost no more than that
        for one in self._fleets.values():
            one.close()

    def _tell(self, topic: str, difference: dict[str, Any], new: frozenset[Follower]) -> None:
        if self._loop is None or self._over.is_set():
            return
        text = shown_json({"at": time.time(), **difference})
        comes = any(one.topic == topic for one in new)
        whole = json.dumps(self.whole(topic)) if comes else ""
        self._loop.call_soon_threadsafe(self._give, topic, text, whole, new)

    def _give(self, topic: str, text: Text, whole: Text, new: frozenset[Follower]) -> None:
        for follower in [one for one in self._followers if one.topic == topic]:
            if follower in new:
                follower.has_begun = True
                follower.give(whole)
            elif follower.has_begun and not follower.give(text):
                self._followers.discard(follower)
                follower.give(None)
