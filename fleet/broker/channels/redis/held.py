"""What a replica holds on Redis: the messages in its memory, and the same at the server under ``keys.held``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from redis.exceptions import ResponseError

from fleet.broker import finished_tags
from fleet.broker.channels.base import Kept, StoreLeft
from fleet.broker.channels.redis.scripts import Link, Prepared
from fleet.broker.channels.redis.unsent_acks import End, Left, UnsentAcks, read_left
from fleet.broker.channels.redis.waiting import Arrival
from fleet.broker.delivery import Delivery
from fleet.broker.envelope import given_back
from fleet.broker.redis_keys import Keys

log = logging.getLogger("fleet.worker")

_ACKS_AT_ONCE = 500


class Tell(Protocol):
    """Sends a packed command and does not wait; ``hear`` gets the answer, or the ResponseError, some time."""

    def __call__(self, packed: bytes, *, hear: Callable[[Any], object]) -> None: ...


class _Message(NamedTuple):
    """Where a message came from and its envelope. apart: the server keeps the envelope in a list of its own."""

    source: str
    envelope: bytes | bytearray
    apart: bool


class Held:
    """Tag -> what the server keeps for it. ``acks``: done with here, and not yet told to the server; ``acks_apart``:
    those of them that have a list of their own there.  ``unsent``: acks in a file, where there is one.

    ``keys`` are the holder's; they are known, and set, with the first connection.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept or Kept()
        self.keys: Keys
        self.acks: list[str] = []
        self.acks_apart: list[str] = []
        self.unsent: UnsentAcks | None = None
        self._messages: dict[str, _Message] = {}
        self._unsure: set[str] = set()
        self._adoptions: dict[str, tuple[Prepared, tuple[Any, ...]]] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, tag: str) -> bool:
        return tag in self._messages

    def add(self, tag: str, source: str, envelope: bytes | bytearray, *, apart: bool = False) -> None:
        """Keep a message that was taken from the list ``source``. apart: the server has it in a list of its own."""
        self._messages[tag] = _Message(source, envelope, apart)

    def adopt(self, tag: str, arrival: Arrival, script: Prepared, *, tell: Tell) -> None:
        """Keep a message that lies in an inbox, and let the server know."""
        arguments = (tag, arrival.envelope)
        tell(script.with_more(arguments), hear=partial(self._on_adopted, tag))
        self.add(tag, arrival.source, arrival.envelope)
        self._adoptions[tag] = script, arguments

    def _on_adopted(self, tag: str, answer: Any) -> None:
        """The server did not find the message where others had been given it."""
        if isinstance(answer, ResponseError):
            raise answer
        del self._adoptions[tag]
        if not answer:
            self._messages.pop(tag, None)

    def never_came(self, tag: str) -> None:
        """The server has noted this tag, but there was no message any more."""
        self.acks.append(tag)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these."""
        for each in deliveries:
            if (message := self._messages.pop(each.tag, None)) is not None:
                self.acks.append(each.tag)
                if message.apart:
                    self.acks_apart.append(each.tag)
                if self.unsent is not None:
                    self.unsent.add(each.tag)

    def note_end(self, delivery: Delivery, result: bytes) -> bool:
        """It is over and waits only for its result to be stored. Without a file: whether it comes again, as it would
        between its acknowledgement and the next turn."""
        tag = delivery.tag
        return tag in self._messages if self.unsent is None else self.unsent.add_end(tag, result)

    def forget_ends(self) -> None:
        """All of those are settled."""
        if self.unsent is not None:
            self.unsent.forget_ends()

    def told(self, count: int) -> None:
        """The server knows the first ``count`` acknowledgements now, and all of ``acks_apart``."""
        del self.acks[:count]
        self.acks_apart.clear()
        if self.unsent is not None and count:
            self.unsent.replace(self.acks)

    def _lists_of(self, tags: Collection[str]) -> list[str]:
        """The lists at the server that some of these messages have for themselves."""
        return [self.keys.apart(tag) for tag in tags if self._messages[tag].apart]

    def _let_go(self, tags: Collection[str], send: Callable[[], object]) -> None:
        """``send`` takes these out of the server's record. When it is interrupted, that may have happened or not."""
        self._unsure.update(tags)
        send()
        for tag in tags:
            self._messages.pop(tag, None)
        self._unsure.difference_update(tags)

    # -- with the server

    def delay(self, link: Link, delivery: Delivery, *, due: float) -> None:
        """Let the server keep this one until ``due`` (Unix time)."""
        names = (self.keys.held, self.keys.delayed(delivery.queue))
        self._let_go([delivery.tag], lambda: link.run("delay", names, (delivery.tag, int(due * 1000))))

    def send(self, link: Link, envelope: bytes, *, to: str, acks: Sequence[Delivery]) -> None:
        """Put a message into the list ``to`` and acknowledge those of ``acks`` that are ours, in one step."""
        tags = [delivery.tag for delivery in acks if delivery.tag in self._messages]
        names = (to, self.keys.held, *self._lists_of(tags))
        self._let_go(tags, lambda: link.run("send", names, (envelope, *tags)))

    def keep_unsent(self, link: Link) -> None:
        """Keep acknowledgements in the file from now on. First send what an earlier process left there: what it had
        finished must not run again."""
        path, finished_path, _ = self._kept
        if path is not None and (left := read_left(path)) is not None:
            self._acknowledge_left(link, left)
        if finished_path is not None and (noted := finished_tags.read(finished_path)) is not None:
            holder, results = noted
            recorded = _recorded(link, Keys(self.keys.prefix, holder))  # all others were settled long ago
            self._acknowledge_left(link, _left_by_slots(holder, results, recorded))
        try:
            if path is not None:
                self.unsent = UnsentAcks(path, holder=self.keys.holder)
            if finished_path is not None:
                finished_tags.begin(finished_path, holder=self.keys.holder)
        except OSError as error:
            log.warning("finished tasks are run again if this process is killed: %s", error)

    def _acknowledge_left(self, link: Link, left: Left) -> None:
        theirs = Keys(self.keys.prefix, left.holder)
        if tags := _finished(left, self._kept.store_left):
            link.call("DEL", *map(theirs.apart, tags))
            link.call("HDEL", theirs.held, *tags)

    def send_acks(self, link: Link, *, only_many: bool = False) -> None:
        """Send buffered acknowledgements; ``only_many``: only more than the next turn can send."""
        if only_many and len(self.acks) <= _ACKS_AT_ONCE:
            return
        if self.acks_apart:  # first these: a tag without its list stands for nothing
            link.call("DEL", *map(self.keys.apart, self.acks_apart))
            self.acks_apart.clear()
        while batch := self.acks[:_ACKS_AT_ONCE]:
            link.call("HDEL", self.keys.held, *batch)
            self.told(len(batch))

    def give_back(self, link: Link, deliveries: Sequence[Delivery], *, unmarked: bool = False) -> None:
        """Put these back, as far as they are ours, marked as delivered before; the first is the next to be taken.

        unmarked: they go back as they were.
        """
        ours = [each.tag for each in deliveries if each.tag in self._messages]
        marked = {tag: self._marked(tag) for tag in ours}
        self._restore(link, dict.fromkeys(ours, b"") if unmarked else marked)

    def give_all_back(self, link: Link) -> None:
        """Put all of them back: this process leaves nothing."""
        self._restore(link, {tag: self._marked(tag) for tag in sorted(self._messages, key=int)})
        self._messages.clear()
        if (path := self._kept.finished_path) is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _marked(self, tag: str) -> bytes:
        return given_back(self._messages.pop(tag).envelope)

    def _restore(self, link: Link, envelopes: Mapping[str, bytes]) -> None:
        if envelopes:
            pairs = [part for tag, envelope in reversed(list(envelopes.items())) for part in (tag, envelope)]
            link.run("restore", (self.keys.held, self.keys.mark), (0, *pairs))

    def adopt_again(self, link: Link) -> None:
        """After a lost connection: the server may not have been told. Before inboxes are emptied."""
        for script, arguments in self._adoptions.values():
            link.run_prepared(script, arguments)
        self._adoptions.clear()

    def resume(self, link: Link, *, given_away: bool) -> None:
        """Make the server's record and our memory agree again after a lost connection.

        What it recorded and we never saw goes back. What we have and it lost (it came back without its last seconds) is
        recorded again, unless it was given to others or may have been acknowledged by the call that was interrupted.
        """
        recorded = _recorded(link, self.keys)
        self._restore(link, dict.fromkeys(sorted(recorded - self._messages.keys(), key=int), b""))
        for tag in self._messages.keys() - recorded:
            if given_away or tag in self._unsure:
                del self._messages[tag]
            else:
                self._record_again(link, tag)
        self._unsure.clear()

    def _record_again(self, link: Link, tag: str) -> None:
        message = self._messages[tag]._replace(apart=False)
        link.call("DEL", self.keys.apart(tag))
        link.call("HSETNX", self.keys.held, tag, message.source.encode() + b"\n" + message.envelope)
        self._messages[tag] = message

    def forget_given_away(self, link: Link) -> None:
        """Forget what was given to others because our lease had run out."""
        for tag in self._messages.keys() - _recorded(link, self.keys):
            del self._messages[tag]


def _recorded(link: Link, keys: Keys) -> set[str]:
    """The tags of all that a holder has, as the server knows."""
    return {tag.decode() for tag in link.call("HKEYS", keys.held)}


def _left_by_slots(holder: str, results: Mapping[str, bytes], recorded: Collection[str]) -> Left:
    """results: by tag; empty where nothing is to be stored."""
    tags = tuple(tag for tag, result in results.items() if tag in recorded and not result)
    ends = tuple(End(tag, result) for tag, result in results.items() if tag in recorded and result)
    return Left(holder, tags, ends)


def _finished(left: Left, store_left: StoreLeft | None) -> list[str]:
    """What an earlier process left and may be acknowledged: where results are to be stored, once they are."""
    tags, ends = list(left.tags), left.ends
    if ends and store_left is not None and store_left([end.result for end in ends]):
        log.info("stored %d results of tasks that the process before had finished", len(ends))
        return tags + [end.tag for end in ends]
    if ends:
        log.error("results of %d finished tasks cannot be stored: those not acknowledged yet run again", len(ends))
    return tags
