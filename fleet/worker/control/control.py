"""Remote control with Celery's names: ``celery inspect`` and ``celery control`` find a fleet worker like any other.

A fanout exchange and a queue per worker, on a connection of its own, so that an answer never waits for the tasks'
connection; events use the same one. Transports without fanout have no remote control; the record holds the same
facts without a broker.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from fleet.broker.backoff import Backoff
from fleet.broker.channels.base import REST_SECONDS, TEND_SECONDS, ChannelLost
from fleet.core.text.format import listed, shown
from fleet.core.text.mask import masked
from fleet.worker.control import greeting
from fleet.worker.control.asker import Asker
from fleet.worker.control.commands import Commands, answered, table, with_old_names
from fleet.worker.control.events import FLUSH_SECONDS, Events
from fleet.worker.control.inspection import Inspection

if TYPE_CHECKING:
    from pathlib import Path

    from fleet.worker.apps.base import Remote
    from fleet.worker.control.mailbox import Mailbox
    from fleet.worker.loop.connection import Connection
    from fleet.worker.loop.consumer import EverySecond
    from fleet.worker.loop.pauses import Pauses
    from fleet.worker.loop.revoked import Revoked

log = logging.getLogger("fleet.worker")

POLL_SECONDS = 0.5
BEAT_SECONDS = 15.0
LAST_EVENTS_SECONDS = 1.0
UNUSED_SECONDS = 30.0
"""After so long without a command or an event, what is only for sending is closed."""
RECONNECT = Backoff(2.0, 60.0, 0.3)


class Broadcast(Protocol):
    """Sends to subscribers of a topic; ``hear`` gets how many had it, some time; None: that is not known."""

    def __call__(self, topic: str, payload: bytes, *, hear: Callable[[int | None], object]) -> object: ...


class Control:
    """Listens and answers for one worker. ``attend`` is for one thread, the housekeeping one or the loop's, until
    ``close``; ``every_second`` is for the loop.

    before_hanging_up: called before its sockets are closed.  on_hung_up: called afterwards, by whichever thread.
    """

    def __init__(
        self,
        url: str,
        node: str,
        *,
        remote: Remote,
        events: Events,
        inspection: Inspection,
        commands: Commands,
        connection: Connection,
        options: Mapping[str, Any] | None = None,
        allow: Collection[str] | None = None,
        broadcast: Broadcast | None = None,
        folder: Path | None = None,
    ) -> None:
        """broadcast: sends to subscribers of a topic over the tasks' connection, for the loop; None: it cannot.
        connection: the one for tasks, which finds out when a broker that was away is back.
        allow: the commands that are answered; None: all.
        folder: what replicas of this fleet on this machine share; None: nothing."""
        self._connection = connection
        self._url = url
        self._node = node
        self._remote = remote
        self._asker = Asker(folder, broker=masked(url), namespace=remote.namespace)
        self._options = options or {}
        self.events = events
        self.inspection = inspection
        self.commands = commands
        every = {**table(self.inspection, self.commands), **remote.own_commands(node)}
        self._table = every if allow is None else {name: every[name] for name in with_old_names(allow) & every.keys()}
        if unknown := set(allow or ()) - every.keys():
            log.warning("remoteControl.allow names commands that there are not: %s", listed(sorted(unknown)))
        self._mailbox: Mailbox | None = None
        self._mutex = threading.RLock()
        self._pauses: Pauses | None = None
        self.before_hanging_up: Callable[[], object] | None = None
        self.on_hung_up: Callable[[], object] | None = None
        self._failed = 0
        self._connect_at = 0.0
        self._attended_at = 0.0
        self._broadcast = broadcast
        self._beat_at = 0.0
        self._flush_at = 0.0
        self._off = self._tried = False
        self.events.switch(on=remote.sends_task_events)

    @property
    def poll_seconds(self) -> float | None:
        """Seconds until the next call is due; what comes on ``fds`` is due at once. None: nothing else is due.

        Some transports have no descriptors; a connection that is away has none either.
        """
        if self._off:
            return None
        if not self.fds():
            return POLL_SECONDS
        due = min(self._beat_at, self._flush_at if self.events.is_hurried else math.inf)
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def fds(self) -> list[int]:
        """Sockets on which a command may come, if the transport has sockets."""
        mailbox = self._mailbox
        return mailbox.fds() if mailbox is not None else []

    def attend(self) -> None:
        """Answer what has come, send what has happened. Never raises."""
        if self._off:
            return
        self._attended_at = time.monotonic()
        with self._mutex:
            try:
                self._attend()
            except Exception as error:
                self._on_error(error)
            afterwards, self.commands.afterwards[:] = list(self.commands.afterwards), []
        for work in afterwards:
            work()

    def join(self, every_second: list[EverySecond], pauses: Pauses) -> None:
        """Let the loop send the heartbeat with what it does anyway."""
        every_second.append(self.every_second)
        pauses.looks.append(lambda: self.events.beat_at or None)
        self._pauses = pauses

    def every_second(self, now: float) -> None:
        """From the loop: the worker's heartbeat goes out with what the loop does anyway. Never raises.

        A beat that is due before the loop would look again is sent now.
        """
        rests = self._pauses is not None and self._pauses.rests
        until_look = REST_SECONDS if rests else TEND_SECONDS
        if self._off or self._mailbox is None or not 0.0 < self.events.beat_at <= now + until_look:
            return
        if not self._mutex.acquire(blocking=False):
            return  # a command is being answered: the next time will do
        try:
            if (mailbox := self._mailbox) is not None:
                self.events.beat(mailbox.publish if self._broadcast is None else self._publish_beside)
                if now - self._attended_at >= UNUSED_SECONDS:
                    mailbox.rest()
        except Exception as error:
            self._on_error(error)
        finally:
            self._mutex.release()

    def _publish_beside(self, body: Any, routing_key: str) -> None:
        """Over the tasks' connection. Where that is lost, the loop finds out by itself."""
        assert self._mailbox is not None
        assert self._broadcast is not None
        topics, payload = self._mailbox.sealed_event(body, routing_key)
        with suppress(ChannelLost):
            hear = self.events.hearing()
            for topic in topics:
                self._broadcast(topic, payload, hear=hear)

    def greet(self, revoked: Revoked) -> None:
        """Once, before the first task: learn from workers elsewhere what is revoked, and tell them. Never raises.

        One replica does so for all that share the folder; the others read its file when they are ready.
        """
        seconds = greeting.seconds_to_wait()
        if self._mailbox is None or seconds <= 0:
            return
        with self._mutex:
            try:
                mailbox, until = self._mailbox, time.monotonic() + 2 * seconds
                with self._asker.turn(until=until, meanwhile=mailbox.drain) as asks:
                    if asks:
                        self._ask(mailbox, revoked, seconds=seconds)
            except Exception as error:
                self._on_error(error)
        revoked.on_unkept = self._asker.leave
        if not revoked.is_kept:
            self._asker.leave()

    def _ask(self, mailbox: Mailbox, revoked: Revoked, *, seconds: float) -> None:
        told = {"from_node": self._node, "revoked": revoked.ids()}
        quiet, until = min(greeting.QUIET_SECONDS, seconds), time.monotonic() + seconds
        replies = mailbox.ask_all("hello", told, quiet_seconds=quiet, until=until)
        greeting.learn(replies, revoked, node=self._node)

    def on_exit(self) -> None:
        """Send the last events, from any thread, before the process exits. Never raises, never waits for long."""
        if not self._mutex.acquire(timeout=LAST_EVENTS_SECONDS):
            return
        try:
            if self._mailbox is not None and not self._off:
                self._off = True
                self.events.say_goodbye(self._mailbox.publish)
        except Exception as error:
            log.debug("the last events were not sent: %r", error)
        finally:
            self._mutex.release()

    def close(self) -> None:
        """Send the last events and disconnect. Never raises."""
        self.on_exit()
        self._off = True
        self._hang_up()

    def answer(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """The reply to one command."""
        found = self._table.get(method)
        if found is not None:
            return answered(found, arguments)
        return {"error": f"no command {shown(method)}; there are {', '.join(sorted(self._table))}"}

    def _attend(self) -> None:
        mailbox = self._mailbox
        if mailbox is None:
            self._open()
            return
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS if mailbox.beats else math.inf
            mailbox.beat()
        mailbox.drain()
        if now >= self._flush_at:
            self._flush_at = now + FLUSH_SECONDS * 0.9
            self.events.flush(mailbox.publish)

    def _open(self) -> None:
        if time.monotonic() < self._connect_at or (self._tried and not self._connection.up):
            return  # while the broker is away, the tasks' connection finds out when it is back
        self._tried = True
        from fleet.worker.control.mailbox import Mailbox, NoFanout

        try:
            self._mailbox = Mailbox(self._url, self._node, self._remote, options=self._options, dispatch=self._dispatch)
        except NoFanout:
            log.info("no remote control and no events: %s has no fanout", masked(self._url))
            self._off = True
            return
        self._mailbox.drain()  # on Redis this subscribes: a ready worker can be reached
        self.inspection.broker = self._mailbox.facts
        self.events.flush(self._mailbox.publish)
        self._failed = 0

    def _dispatch(self, method: str, arguments: Mapping[str, Any]) -> Any:
        return self.answer(method, arguments)

    def _on_error(self, error: Exception) -> None:
        pause = RECONNECT.seconds(self._failed)
        if self._failed == 0:
            log.warning("remote control is away: %s; next try in %.0f s", error, pause)
        self._failed += 1
        self._connect_at = time.monotonic() + pause
        self._hang_up()

    def _hang_up(self) -> None:
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            if self.before_hanging_up is not None:
                self.before_hanging_up()
            mailbox.close()
            self._asker.leave()
            self.events.connection_lost()
            self._beat_at = 0.0
            if self.on_hung_up is not None:
                self.on_hung_up()
