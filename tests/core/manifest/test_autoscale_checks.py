"""Warnings about groups that autoscale and would not move."""

from __future__ import annotations

import pytest

from fleet.errors import ManifestError
from tests.core.texts import GOOD, fleet, read

BUDGET = "  concurrency: 40\n"


def warned(groups: str, *, more: str = BUDGET, broker: str = "embedded") -> list[str]:
    """What is warned of, hints included."""
    text = fleet(groups, more=more).replace("broker: embedded", f"broker: {broker}")
    return [str(warning) for warning in read(text).warnings]


def one(groups: str, *, more: str = BUDGET, broker: str = "embedded") -> str:
    (warning,) = warned(groups, more=more, broker=broker)
    return warning


def test_groups_with_queues_on_a_broker_that_tells_are_seen() -> None:
    groups = "a: {pool: solo, autoscale: {}, queues: [a]}\n    b: {pool: gevent, autoscale: {}, queues: [b]}"

    for broker in ("embedded", "{url: 'redis://host/0'}", "{url: 'amqp://host//'}", "{url: 'sqla+sqlite:///x'}"):
        assert warned(groups, broker=broker) == []
    assert read(GOOD).warnings == ()


def test_a_command_keeps_no_count_of_its_tasks_and_cannot_be_seen() -> None:
    text = one("a: {command: [rq, worker], capacity: {slots: 2}, autoscale: {}}")

    assert "spec.groups.a.autoscale: the controller cannot see how busy a command is" in text
    assert "stays at its static share" in text
    assert "hint: use a worker, or write share instead of autoscale" in text


def test_celerys_worker_is_seen_and_moves_by_whole_replicas() -> None:
    def celery(more: str, pool: str) -> str:
        return f"a: {{worker: celery, pool: {pool}, autoscale: {{{more}}}, queues: [a]}}"

    text = one(celery("min: 4", "{type: prefork, concurrency: 4}"))

    assert "a.autoscale.unit: a prefork pool of celery's worker cannot change its 4 slots while it runs" in text
    assert warned(celery("unit: 4", "{type: prefork, concurrency: 4}")) == []
    assert warned(celery("", "solo")) == []


def test_a_warning_has_its_place_in_the_file() -> None:
    warning = read(fleet("a: {pool: solo, autoscale: {}}", more=BUDGET)).warnings[0]

    assert (warning.source, warning.line) == ("1.yaml", 9)


def test_without_queues_there_is_nothing_to_look_at() -> None:
    assert "spec.groups.a.autoscale: the controller looks at queues, and the group names none" in one(
        "a: {pool: solo, autoscale: {}}"
    )
    assert warned("a: {pool: solo, share: {}}") == []


@pytest.mark.parametrize("url", ["memory://", "confluentkafka://host", "carrier-pigeon://coop"])
def test_a_broker_that_tells_nobody_what_waits(url: str) -> None:
    groups = "a: {pool: solo, autoscale: {}, queues: [a]}\n    b: {pool: solo, share: {}, queues: [b]}"
    texts = warned(groups, broker=f"{{url: '{url}'}}")

    assert "spec.broker.url: this kind of broker does not report queue lengths: a would stay" in texts[-1]
    assert not any("queue lengths" in text for text in warned("b: {replicas: 1}", broker=f"{{url: '{url}'}}"))


def test_of_a_broker_whose_url_is_a_secret_nothing_is_said() -> None:
    more = BUDGET + "  secrets: {url: {env: URL}}\n"

    assert warned("a: {pool: solo, autoscale: {}, queues: [a]}", more=more, broker="{url: {secret: url}}") == []


@pytest.mark.parametrize("mode", ["static", '"off"'])
def test_where_nothing_moves_that_alone_is_said(mode: str) -> None:
    text = one("a: {worker: celery, autoscale: {}}", more=f"{BUDGET}  balance: {{mode: {mode}}}\n")

    assert f"spec.balance.mode: nothing moves: a should autoscale, and the mode is {mode.strip(chr(34))}" in text
    assert warned("a: {pool: solo, share: {}}", more=f"{BUDGET}  balance: {{mode: {mode}}}\n") == []


def test_a_queue_that_several_groups_take_from_counts_in_parts() -> None:
    moved = "a: {pool: solo, autoscale: {}, queues: [x, y]}"
    text = one(f"{moved}\n    b: {{pool: solo, autoscale: {{}}, queues: {{x: {{priority: 5}}, z: {{}}}}}}")

    assert "spec.groups.b.queues.x: a and b take from queue 'x': each counts an equal part of what waits in it" in text
    assert "a.queues.y: b and a take from queue 'y'" in one(f"{moved}\n    b: {{replicas: 1, queues: [y]}}")
    assert warned("a: {replicas: 1, queues: [x]}\n    b: {pool: solo, share: {}, queues: [x]}") == []


def test_a_pool_that_cannot_change_its_slots_moves_by_whole_replicas() -> None:
    def custom(more: str) -> str:
        return f"a: {{pool: {{type: custom, class: 'x:Y', concurrency: 4}}, autoscale: {{{more}}}, queues: [a]}}"

    text = one(custom("min: 4"))

    assert "a.autoscale.unit: a custom pool cannot change its 4 slots while it runs" in text
    assert "hint: write `unit: 4`" in text
    assert warned(custom("unit: 8")) == []
    assert warned("a: {pool: {type: custom, class: 'x:Y', concurrency: 1}, autoscale: {}, queues: [a]}") == []


def test_a_manifest_with_problems_is_told_those_first() -> None:
    text = fleet("a: {pool: solo, autoscale: {wieght: 2}}", more=BUDGET)

    with pytest.raises(ManifestError, match="wieght") as caught:
        read(text)
    assert "controller" not in str(caught.value)
