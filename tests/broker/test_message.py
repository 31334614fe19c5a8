"""Messages as Celery writes them, read and built."""

from __future__ import annotations

import json
import pickle
import zlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.broker.delivery import Delivery
from fleet.broker.envelope import SENT_AT_HEADER
from fleet.broker.message import Built, TaskMessage, build
from fleet.broker.message_body import BadMessage

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def delivery(body: Any = None, headers: dict[str, Any] | None = None, **fields: Any) -> Delivery:
    raw = body if isinstance(body, bytes | str) else json.dumps(body if body is not None else [[1], {"k": 2}, EMBED])
    basic = {"task": "t", "id": "i"} if headers is None else headers
    return Delivery("1", "q", raw, basic, fields.pop("properties", {}), **fields)


def arrived(built: Built, **fields: Any) -> TaskMessage:
    return TaskMessage.from_delivery(
        Delivery(
            "1",
            "q",
            built.body,
            built.headers,
            built.properties,
            content_type=built.content_type,
            content_encoding=built.content_encoding,
            **fields,
        )
    )


def test_protocol_2_is_read_from_its_headers() -> None:
    message = TaskMessage.from_delivery(
        delivery(
            headers={
                "task": "shop.thumb",
                "id": "abc",
                "retries": 2,
                "eta": "2026-01-02T03:04:05+02:00",
                "expires": "2026-01-02T03:04:05",
                "timelimit": [10, 5.5],
                "root_id": "r",
                "parent_id": "p",
                "group": "g",
                "shadow": "nice",
                "ignore_result": True,
                "origin": "gen1@host",
                "stamps": {"a": 1},
            },
            properties={"reply_to": "there", "correlation_id": "abc"},
        )
    )
    assert (message.name, message.id, message.headers["shadow"]) == ("shop.thumb", "abc", "nice")
    assert (message.args, message.kwargs, message.embed) == ([1], {"k": 2}, EMBED)
    assert message.eta == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert message.expires == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (message.time_limit, message.soft_time_limit, message.retries) == (10.0, 5.5, 2)
    assert (message.root_id, message.parent_id, message.group) == ("r", "p", "g")
    assert (message.reply_to, message.correlation_id) == ("there", "abc")
    assert (message.ignore_result, message.origin, message.stamps) == (True, "gen1@host", {"a": 1})


def test_body_is_not_touched_before_it_is_asked_for() -> None:
    message = TaskMessage.from_delivery(delivery("not json"))
    assert message.name == "t"
    with pytest.raises(BadMessage, match="cannot be decoded"):
        _ = message.args


def test_protocol_1_is_read_from_its_body() -> None:
    body = {
        "task": "old",
        "id": "1",
        "args": [1],
        "kwargs": {"a": 2},
        "retries": 3,
        "eta": "2026-01-01T00:00:00",
        "taskset": "g",
        "timelimit": [None, 4],
        "callbacks": ["c"],
        "utc": True,
    }
    message = TaskMessage.from_delivery(delivery(body, headers={}))
    assert (message.name, message.id, message.args, message.kwargs) == ("old", "1", [1], {"a": 2})
    assert (message.retries, message.group, message.soft_time_limit) == (3, "g", 4.0)
    assert message.eta == datetime(2026, 1, 1, tzinfo=UTC)
    assert message.embed["callbacks"] == ["c"]
    assert message.request(hostname="w")["argsrepr"]


def test_hybrid_of_headers_and_body_is_read_from_both() -> None:
    body = {"task": "t", "id": "1", "args": [1], "kwargs": {}, "retries": 4, "chord": {"x": 1}}
    message = TaskMessage.from_delivery(delivery(body, headers={"task": "t", "id": "2"}))
    assert message.id == "2"
    assert message.args == [1]
    assert message.retries == 4
    assert message.embed["chord"] == {"x": 1}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (delivery({"hello": 1}, headers={}), "neither its headers nor its body"),
        (delivery("\x00", headers={}), "cannot be decoded"),
        (delivery("[" * 100_000, headers={}), "cannot be decoded"),
        (delivery(headers={"task": None, "id": "1"}), "the name of the task is None"),
        (delivery(headers={"task": "t", "id": 7}), "the id is 7"),
        (delivery({"task": ["x"], "id": "1"}, headers={}), "the name of the task is"),
        (delivery(headers={}, content_type="application/x-python-serialize"), "not accepted"),
    ],
)
def test_what_is_no_task_message_is_refused_with_a_reason(bad: Delivery, reason: str) -> None:
    with pytest.raises(BadMessage, match=reason):
        TaskMessage.from_delivery(bad)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([1, 2], "not \\[args, kwargs, embed\\]"),
        ({"a": 1}, "not \\[args, kwargs, embed\\]"),
        ([{}, {}, {}], "arguments are dict"),
        ([[], [], {}], "keyword arguments"),
        ([[], {}, "x"], "keyword arguments"),
        (b"\xff\xfe\x00", "cannot be decoded"),
    ],
)
def test_body_of_another_shape_is_refused_with_a_reason(body: Any, reason: str) -> None:
    with pytest.raises(BadMessage, match=reason):
        _ = TaskMessage.from_delivery(delivery(body)).payload


@pytest.mark.parametrize("field", ["eta", "expires"])
@pytest.mark.parametrize("value", ["soon", 12, ["x"], "2026-99-01"])
def test_time_that_is_none_is_refused(field: str, value: Any) -> None:
    message = TaskMessage.from_delivery(delivery(headers={"task": "t", "id": "i", field: value}))
    with pytest.raises(BadMessage, match=field):
        getattr(message, field)


@pytest.mark.parametrize("limits", [None, [], "ab", [None, None], ["x", {}], [0, -1], 5])
def test_strange_limits_are_no_limits(limits: Any) -> None:
    message = TaskMessage.from_delivery(delivery(headers={"task": "t", "id": "i", "timelimit": limits}))
    assert (message.time_limit, message.soft_time_limit) == (None, None)


def test_pickle_is_refused_unless_it_is_accepted() -> None:
    pickled = delivery(
        pickle.dumps(([1], {}, EMBED)), content_type="application/x-python-serialize", content_encoding="binary"
    )
    with pytest.raises(BadMessage, match="not accepted"):
        _ = TaskMessage.from_delivery(pickled).args
    assert TaskMessage.from_delivery(pickled, accept=["json", "pickle"]).args == [1]
    assert TaskMessage.from_delivery(pickled, accept=["application/x-python-serialize"]).args == [1]
    with pytest.raises(BadMessage, match="not accepted"):
        _ = TaskMessage.from_delivery(delivery(), accept=["pickle"]).args


def test_compressed_body_is_read() -> None:
    body = zlib.compress(json.dumps([[1], {}, EMBED]).encode())
    message = TaskMessage.from_delivery(
        delivery(body, headers={"task": "t", "id": "i", "compression": "application/x-gzip"})
    )
    assert message.args == [1]
    broken = TaskMessage.from_delivery(delivery(b"x", headers={"task": "t", "id": "i", "compression": "nope"}))
    with pytest.raises(BadMessage, match="cannot be decoded"):
        _ = broken.args


def test_extended_json_types_of_kombu_are_read_and_written() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    message = arrived(build("t", [day, b"\xff"], {"at": day}))
    assert (message.args, message.kwargs) == ([day, b"\xff"], {"at": day})


def test_built_message_reads_back() -> None:
    built = build(
        "t",
        (1, "ü"),
        {"a": None},
        task_id="me",
        countdown=10,
        expires=60,
        retries=1,
        priority=3,
        time_limit=5,
        soft_time_limit=4,
        parent_id="p",
        extra={"x-a": 1},
        now=1000.0,
    )
    message = arrived(built)
    assert (message.id, message.name, message.root_id, message.parent_id) == ("me", "t", "me", "p")
    assert (message.args, message.kwargs, message.embed) == ([1, "ü"], {"a": None}, EMBED)
    assert message.eta == datetime.fromtimestamp(1010, UTC)
    assert message.expires == datetime.fromtimestamp(1060, UTC)
    assert (message.time_limit, message.soft_time_limit, message.retries, message.sent_at) == (5.0, 4.0, 1, 1000.0)
    assert built.properties == {"correlation_id": "me", "reply_to": "", "priority": 3}
    assert built.headers["x-a"] == 1


def test_long_arguments_are_cut_in_the_headers_only() -> None:
    built = build("t", ["x" * 10_000], {"k": list(range(100_000))})
    assert len(built.headers["argsrepr"]) <= 1024
    assert len(built.headers["kwargsrepr"]) <= 1024
    assert len(arrived(built).args[0]) == 10_000


def test_what_json_cannot_carry_is_an_error_of_the_sender() -> None:
    with pytest.raises(TypeError):
        build("t", [object()])


def test_message_sent_again_keeps_its_body_and_counts_retries() -> None:
    eta = datetime.now(UTC) + timedelta(minutes=1)
    first = build("t", [1], priority=6, extra={"x-fleet-attempts": 3})
    again = arrived(first).again(retries=2, eta=eta)
    assert again.body == first.body
    message = arrived(again)
    assert (message.retries, message.eta, message.id) == (2, eta, first.headers["id"])
    assert again.properties["priority"] == 6
    assert "x-fleet-attempts" not in again.headers
    assert again.headers[SENT_AT_HEADER] >= first.headers[SENT_AT_HEADER]


def test_protocol_1_message_sent_again_is_protocol_2() -> None:
    body = {"task": "old", "id": "1", "args": [1], "kwargs": {"a": 2}}
    again = TaskMessage.from_delivery(delivery(body, headers={})).again(retries=1, eta=None)
    message = arrived(again)
    assert (message.name, message.id, message.args, message.kwargs, message.retries) == ("old", "1", [1], {"a": 2}, 1)


def celery_app() -> Any:
    celery = pytest.importorskip("celery")
    return celery.Celery("x", broker="memory://", set_as_current=False)


def celery_message(**options: Any) -> Any:
    from kombu.serialization import dumps

    message = celery_app().amqp.as_task_v2("me", "t", args=(1,), kwargs={"a": 2}, **options)
    content_type, encoding, body = dumps(message.body, serializer="json")
    return message, Delivery("1", "q", body, message.headers, message.properties, content_type, encoding)


def test_request_is_what_celerys_own_worker_builds() -> None:
    pytest.importorskip("celery")
    from celery.worker.request import Request
    from kombu.message import Message

    message, ours = celery_message(countdown=5, expires=50, time_limit=9, root_id="r", parent_id="p", chord={"c": 1})
    ours.properties = {**ours.properties, "priority": 4, "delivery_info": {"exchange": "e", "routing_key": "k"}}
    app = celery_app()

    @app.task(name="t", shared=False)
    def task(a: int) -> int:
        return a

    theirs = Request(
        Message(
            body=ours.body,
            content_type=ours.content_type,
            content_encoding=ours.content_encoding,
            headers=dict(message.headers),
            properties=ours.properties,
            delivery_info=ours.properties["delivery_info"],
        ),
        app=app,
        hostname="w@host",
    )
    expected = {**theirs.request_dict, **theirs._payload[2], "is_eager": False}
    assert TaskMessage.from_delivery(ours).request(hostname="w@host") == expected


def test_our_message_has_the_headers_of_celerys_producer() -> None:
    theirs, _ = celery_message()
    ours = build("t", (1,), {"a": 2}, task_id="me")
    assert set(ours.headers) - {SENT_AT_HEADER} == set(theirs.headers)
    assert ours.headers["ignore_result"] is None, "the task decides, as with Celery's own apply_async"
    for name in set(theirs.headers) - {"origin", "ignore_result"}:
        assert ours.headers[name] == theirs.headers[name] or (name, theirs.headers[name]) == ("parent_id", None), name
    assert ours.properties == theirs.properties


def test_celery_protocol_1_producer_is_read() -> None:
    app = celery_app()
    message = app.amqp.as_task_v1("me", "t", args=(1,), kwargs={"a": 2}, countdown=5, retries=1)
    got = TaskMessage.from_delivery(delivery(json.dumps(message.body, default=str), headers=dict(message.headers)))
    assert (got.id, got.name, got.args, got.kwargs, got.retries) == ("me", "t", [1], {"a": 2}, 1)
    assert got.eta is not None


def test_text_and_bytes_are_both_bodies() -> None:
    text = json.dumps([[1], {}, EMBED])
    assert TaskMessage.from_delivery(delivery(text)).args == [1]
    assert TaskMessage.from_delivery(delivery(text.encode())).args == [1]
    with pytest.raises(BadMessage):
        _ = TaskMessage.from_delivery(delivery(b64encode(text.encode()))).args
