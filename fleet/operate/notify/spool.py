"""What is to be sent, as values: how far the audit was read, what is held back within a window, what waits. PURE."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from fleet.core.backoff import backoff_seconds
from fleet.operate.notify.news import News

if TYPE_CHECKING:
    from fleet.core.manifest.notify_models import Notification

MOST_MESSAGES = 500
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 600.0
GIVE_UP_SECONDS = 86_400.0
OLDEST_NEWS_SECONDS = 3600.0
"""Older news are told to nobody: a notification that is new in the manifest does not tell the past."""
MOST_UNKNOWN = 2
"""So many attempts whose end nobody knows, because the sender died: then the message counts as sent."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the audit was read: the file, by its inode, and the offset in it."""

    inode: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """News of one kind for one group that are held back until a moment. last: the newest of them."""

    until: float
    count: int = 0
    last: News | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to send, to one receiver. receiver: the key of a notification.  count: news that it stands for.

    next_at: not before.  is_under_way: an attempt began, and its end is not known.  unknown: how many such there were.
    error: why the last attempt failed; it holds no secret.
    """

    receiver: str
    way: str
    news: News
    count: int
    made_at: float
    next_at: float = 0.0
    attempts: int = 0
    is_under_way: bool = False
    unknown: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Down:
    """A receiver whose last attempts failed: it is asked once for all that waits for it. until: not before."""

    failures: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Spool:
    """Everything that is remembered between two looks. dropped: messages that were given up.  error: why the last of
    them was, or the last attempt failed; '' after one that arrived."""

    cursor: Cursor | None = None
    windows: Mapping[str, Window] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    down: Mapping[str, Down] = field(default_factory=dict)
    sent: int = 0
    dropped: int = 0
    error: str = ""

    @property
    def failing(self) -> tuple[Message, ...]:
        """Those that were tried and did not arrive, and those that wait behind them."""
        return tuple(one for one in self.messages if one.error or one.receiver in self.down)

    def due_at(self, message: Message) -> float:
        """When a message may be sent."""
        return max(message.next_at, self.down.get(message.receiver, Down()).until)

    def next_at(self) -> float | None:
        """When something is to be done without news; None for never."""
        moments = [self.due_at(one) for one in self.messages]
        moments += [one.until for one in self.windows.values() if one.count]
        return min(moments, default=None)

    def to_json(self) -> dict[str, object]:
        """:func:`fleet.core.decode.decoded` reads it back."""
        return asdict(self)


def key_of(notification: Notification) -> str:
    """The receiver: what it is told, and how often, may change."""
    text = json.dumps({name: _plain(way) for name, way in notification.ways().items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sample(notification: Notification, *, now: float) -> Message:
    """What a person has sent to see whether it arrives."""
    news = News("test", now, "a test: `fleet notify test` was run")
    return Message(key_of(notification), next(iter(notification.ways())), news, 1, now)


def _plain(way: object) -> object:
    dump: Callable[..., object] | None = getattr(way, "model_dump", None)
    return dump(mode="json", exclude={"body"}) if dump is not None else way


def taken(
    spool: Spool, news: Sequence[News], notifications: Collection[Notification], *, cursor: Cursor, now: float
) -> Spool:
    """With what these news, and windows that are over, have to tell."""
    windows, fresh = dict(spool.windows), []
    for notification in notifications:
        key, way = key_of(notification), next(iter(notification.ways()))
        for one in news:
            if one.at < now - OLDEST_NEWS_SECONDS or not notification.wants(one.kind, one.group):
                continue
            name = f"{key}/{one.kind}/{one.group}"
            window = windows.get(name)
            if window is not None and now < window.until:
                windows[name] = replace(window, count=window.count + 1, last=one)
            else:
                held = window.count if window is not None else 0
                fresh.append(Message(key, way, one, held + 1, now))
                windows[name] = Window(now + notification.window_seconds)
        for name, window in [item for item in windows.items() if item[0].startswith(f"{key}/")]:
            if now < window.until:
                continue
            if window.last is None:
                del windows[name]
            else:
                fresh.append(Message(key, way, window.last, window.count, now))
                windows[name] = Window(now + notification.window_seconds)
    known = {key_of(one) for one in notifications}
    kept = [one for one in (*spool.messages, *fresh) if one.receiver in known]
    lost = max(0, len(kept) - MOST_MESSAGES)
    return replace(
        spool,
        cursor=cursor,
        windows={name: one for name, one in windows.items() if name.partition("/")[0] in known},
        messages=tuple(kept[lost:]),
        down={key: one for key, one in spool.down.items() if key in known},
        dropped=spool.dropped + lost,
    )


def settled(spool: Spool) -> Spool:
    """After a start of the sender: attempts whose end nobody knows are made once more, and no more than that."""
    left = []
    for one in spool.messages:
        unknown = one.unknown + one.is_under_way
        if unknown < MOST_UNKNOWN:
            left.append(replace(one, is_under_way=False, unknown=unknown))
    return replace(spool, messages=tuple(left))


def begun(spool: Spool, message: Message) -> tuple[Spool, Message]:
    """An attempt begins."""
    after = replace(message, is_under_way=True, attempts=message.attempts + 1)
    return _exchanged(spool, message, after), after


def next_due(spool: Spool, *, now: float) -> Message | None:
    """What to send now: what was tried least comes first, so that a message that is refused holds up no other."""
    due = [one for one in spool.messages if spool.due_at(one) <= now]
    return min(due, key=lambda one: one.attempts, default=None)


def arrived(spool: Spool, message: Message) -> Spool:
    """The attempt succeeded: its receiver is there."""
    rest = _exchanged(spool, message, None)
    down = {key: one for key, one in spool.down.items() if key != message.receiver}
    error = next((one.error for one in reversed(rest.messages) if one.error), "")
    return replace(rest, down=down, sent=spool.sent + 1, error=error)


def failed(spool: Spool, message: Message, error: str, *, now: float, is_final: bool = False) -> Spool:
    """The attempt failed: later again; after a day, or where another would do harm, never."""
    if is_final or now - message.made_at >= GIVE_UP_SECONDS:
        return replace(_exchanged(spool, message, None), dropped=spool.dropped + 1, error=error)
    after = replace(message, is_under_way=False, unknown=0, error=error, next_at=now + _pause(message.attempts))
    failures = spool.down.get(message.receiver, Down()).failures + 1
    down = {**spool.down, message.receiver: Down(failures, now + _pause(failures))}
    return replace(_exchanged(spool, message, after), down=down, error=error)


def _pause(failures: int) -> float:
    return backoff_seconds(failures - 1, initial_seconds=RETRY_SECONDS, max_seconds=LONGEST_RETRY_SECONDS)


def _exchanged(spool: Spool, message: Message, after: Message | None) -> Spool:
    places = [after if one is message else one for one in spool.messages]
    return replace(spool, messages=tuple(one for one in places if one is not None))
