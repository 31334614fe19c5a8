"""Reads what is new in a fleet's audit, keeps what is to be sent, and sends it; one process at a time.

Everything is in one small file, replaced in one step: how far the audit was read and what waits go together, so that
news are neither lost nor chosen twice, whoever is killed when. An attempt is written down before it is made: a sender
that dies in it leaves one message that may arrive twice, and never a third time.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.core.text.format import one_line
from fleet.errors import FleetError
from fleet.file_access import make_folders, open_own
from fleet.operate.notify.doors import deliver
from fleet.operate.notify.errors import NotSent
from fleet.operate.notify.news import News, news_of
from fleet.operate.notify.rendering import fields_of, masker
from fleet.operate.notify.spool import Cursor, Message, Spool, arrived, begun, failed, key_of, next_due, settled, taken
from fleet.operate.notify.spool_file import read_spool
from fleet.state.audit import Audit
from fleet.state.files import write_whole
from fleet.state.paths import Places

if TYPE_CHECKING:
    from fleet.core.manifest.notify_models import Notification

LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True)
class Receivers:
    """Who is told, and what it takes. secrets: name -> value, raises FleetError.  folder: where commands run."""

    notifications: Sequence[Notification]
    secrets: Callable[[], Mapping[str, str]]
    folder: Path


class Notifier:
    """The notifications of one fleet. now: Unix seconds."""

    def __init__(self, places: Places, receivers: Receivers, *, now: Callable[[], float]) -> None:
        self._places = places
        self._audit = Audit(places.audit, now=now)
        self._receivers = receivers
        self._now = now

    def begin(self) -> None:
        """Tell from here on, where nothing was told before. Raises FleetError."""
        with self._alone() as is_alone:
            if is_alone and self._receivers.notifications and read_spool(self._places).cursor is None:
                self._keep(replace(read_spool(self._places), cursor=Cursor(*self._audit.end())))

    def is_due(self) -> bool:
        """Whether a look has something to do; costs next to nothing."""
        if not self._receivers.notifications:
            return False
        spool = read_spool(self._places)
        next_at = spool.next_at()
        return spool.cursor != Cursor(*self._audit.end()) or (next_at is not None and next_at <= self._now())

    def look(self) -> Spool:
        """Choose what is new, and send what is due. Raises FleetError where it cannot be written down."""
        with self._alone() as is_alone:
            if not is_alone:  # whoever is at it sees the same
                return read_spool(self._places)
            spool = settled(self._chosen())
            while (message := next_due(spool, now=self._now())) is not None:
                spool = self._sent(spool, message)
            return spool

    def _chosen(self) -> Spool:
        before = read_spool(self._places)
        cursor = before.cursor or Cursor(*self._audit.end())
        entries, inode, offset = self._audit.after(cursor.inode, cursor.offset)
        news = [self._masked(one) for entry in entries if (one := news_of(entry)) is not None]
        after = taken(before, news, self._receivers.notifications, cursor=Cursor(inode, offset), now=self._now())
        if after != before:
            self._keep(after)
        return after

    def _masked(self, news: News) -> News:
        """Nothing that is secret goes into the file."""
        mask = masker(self._known_secrets())
        return replace(news, reason=mask(news.reason), by=mask(news.by))

    def _known_secrets(self) -> Mapping[str, str]:
        try:
            return self._receivers.secrets()
        except FleetError:
            return {}

    def _sent(self, spool: Spool, message: Message) -> Spool:
        notification = next(one for one in self._receivers.notifications if key_of(one) == message.receiver)
        spool, message = begun(spool, message)
        self._keep(spool)
        try:
            send(notification, message, fleet=self._places.fleet, receivers=self._receivers)
        except NotSent as error:
            text = one_line(error.message, most=LONGEST_ERROR)
            spool = failed(spool, message, text, now=self._now(), is_final=error.is_final)
        else:
            spool = arrived(spool, message)
        self._keep(spool)
        return spool

    def _keep(self, spool: Spool) -> None:
        write_whole(self._places.notifications, json.dumps(spool.to_json(), ensure_ascii=False), lasting=False)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process is at it; held until the end, and freed by a crash."""
        path = self._places.notifications_lock
        try:
            make_folders(path.parent)
            descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        except OSError:
            yield False
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)


def send(notification: Notification, message: Message, *, fleet: str, receivers: Receivers) -> None:
    """One message, once. Raises NotSent; nothing secret is in what is sent, nor in the error."""
    try:
        secrets = receivers.secrets()
    except FleetError as error:
        raise NotSent(f"its secrets cannot be read: {error.message}") from error
    mask = masker(secrets)
    fields = fields_of(message, fleet=fleet, host=socket.gethostname(), mask=mask)
    try:
        deliver(notification, fields, secrets=secrets, folder=receivers.folder)
    except NotSent as error:
        raise NotSent(mask(error.message), is_final=error.is_final) from None


class Background:
    """A look in a thread of its own: a receiver that is slow, or hangs, holds nothing up but other notifications."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, look: Callable[[], object]) -> None:
        """Begin a look, unless one is under way."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=_quietly, args=(look,), name="notify", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until it is done, at most for so long."""
        if self._thread is not None:
            self._thread.join(seconds)


def _quietly(look: Callable[[], object]) -> None:
    """What cannot be sent is in the spool; what cannot be written down is told by the doctor."""
    try:
        look()
    except (FleetError, OSError):
        return
