"""Properties of deliveries: as py-amqp reads them, and without it where a task message has nothing unusual."""

from __future__ import annotations

from decimal import Decimal
from struct import pack
from typing import Any

import pytest
from amqp.basic_message import Message
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker.channels.rabbitmq import frames
from fleet.broker.channels.rabbitmq.frames import Pushed
from fleet.broker.message import build

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
NAMES = st.text(min_size=1, max_size=9)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))


def pushed(message: Message) -> Pushed:
    """This message as it comes from the socket."""
    return Pushed("1.0", 1, False, "", "q", pack(">HHQ", 60, 0, 0) + message._serialize_properties(), b"")


@given(headers=st.dictionaries(NAMES, VALUES, max_size=6))
def test_headers_of_every_kind_are_read_as_py_amqp_reads_them(headers: dict[str, Any]) -> None:
    made = Message(b"", content_type="a", application_headers=headers)
    assert pushed(made).properties() == {"content_type": "a", "application_headers": headers}


@pytest.mark.parametrize("headers", [{"d": Decimal("1.5")}, {"a": [Decimal("1.5")]}, {"b": b"\xff\xfe"}])
def test_what_only_py_amqp_can_read_is_left_to_it(headers: dict[str, Any]) -> None:
    made = Message(b"", application_headers=headers)
    assert pushed(made).properties() == made.properties


def test_a_task_message_is_read_without_py_amqp(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take most of the time that a message costs."""
    monkeypatch.setattr(frames, "AmqpMessage", None)
    headers = build("t", (1,), {"a": 2}, time_limit=2.5, extra={"stamps": {"s": ["x"]}}).headers
    assert pushed(Message(b"", application_headers=headers)).properties() == {"application_headers": headers}
