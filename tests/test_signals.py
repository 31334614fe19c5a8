"""fleet.signals: connecting, filtering by sender, and receivers that fail."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fleet.signals import Signal


def test_receivers_get_sender_signal_and_arguments_in_order() -> None:
    signal, seen = Signal("shop_opened"), []

    @signal.connect
    def first(sender: object, **arguments: Any) -> None:
        seen.append(("first", sender, arguments))

    @signal.connect()
    def second(**arguments: Any) -> None:
        seen.append(("second", arguments["sender"], arguments["door"]))

    signal.send("me", door=1)

    assert seen == [("first", "me", {"signal": signal, "door": 1}), ("second", "me", 1)]


def test_a_receiver_may_ask_for_one_sender_only() -> None:
    signal, seen = Signal("shop_opened"), []
    signal.connect(lambda door, **_: seen.append(door), sender="me")
    signal.send("you", door=1)
    signal.send("me", door=2)

    assert seen == [2]


def test_connecting_twice_is_once_and_disconnecting_ends_it() -> None:
    signal, seen = Signal("shop_opened"), []

    def receiver(**_: Any) -> None:
        seen.append(1)

    assert not signal.heard
    assert signal.connect(signal.connect(receiver)) is receiver
    signal.send(None)
    assert (signal.heard, seen) == (True, [1])
    assert signal.disconnect(receiver)
    assert not signal.disconnect(receiver)
    signal.send(None)
    assert (signal.heard, seen) == (False, [1])


def test_a_receiver_is_kept_alive() -> None:
    signal, seen = Signal("shop_opened"), []
    signal.connect(lambda **_: seen.append(1))
    signal.send(None)

    assert seen == [1]


def test_a_receiver_that_raises_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    signal, seen = Signal("shop_opened"), []

    @signal.connect
    def broken(**_: Any) -> None:
        raise ValueError("as asked")

    signal.connect(lambda **_: seen.append(1))
    with caplog.at_level(logging.ERROR):
        signal.send(None)

    assert seen == [1]
    assert "a receiver of shop_opened failed" in caplog.text
    assert "as asked" in caplog.text
