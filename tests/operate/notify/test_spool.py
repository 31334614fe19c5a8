"""What is told, when and how often, as values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.core.manifest.notify_models import Notification
from fleet.operate.notify.news import News
from fleet.operate.notify.spool import (
    GIVE_UP_SECONDS,
    MOST_MESSAGES,
    OLDEST_NEWS_SECONDS,
    Cursor,
    Spool,
    arrived,
    begun,
    failed,
    next_due,
    settled,
    taken,
)

NOW = 1_000_000.0
HERE = Cursor(1, 1)


def told(**fields: Any) -> Notification:
    return Notification.model_validate({"webhook": {"url": "http://x/"}, "on": ["all"], **fields})


def crash(group: str = "a", *, at: float = NOW) -> News:
    return News("crash", at, "killed", group, f"{group}.0")


def after(*news: News, spool: Spool = Spool(), now: float = NOW, who: Notification | None = None) -> Spool:  # noqa: B008
    return taken(spool, news, [who or told()], cursor=HERE, now=now)


def counts(spool: Spool) -> list[tuple[str, int]]:
    return [(one.news.group, one.count) for one in spool.messages]


def test_a_storm_is_one_message_and_then_its_count() -> None:
    spool = after(*[crash()] * 10, crash("b"))
    assert counts(spool) == [("a", 1), ("b", 1)]

    later = taken(spool, [], [told()], cursor=HERE, now=NOW + 300)
    assert counts(later) == [("a", 1), ("b", 1), ("a", 9)]

    calm = taken(later, [], [told()], cursor=HERE, now=NOW + 600)
    assert counts(calm) == counts(later)
    assert calm.windows == {}


def test_news_after_the_window_are_told_at_once_with_what_was_held_back() -> None:
    spool = after(crash(), crash(), crash())
    later = after(crash(at=NOW + 301), spool=spool, now=NOW + 301)

    assert counts(later) == [("a", 1), ("a", 3)]


def test_without_a_window_everything_is_told() -> None:
    assert counts(after(crash(), crash(), who=told(window="0s"))) == [("a", 1), ("a", 1)]


def test_kinds_and_groups_are_chosen() -> None:
    news = [crash("a"), crash("b"), News("rollout.failed", NOW, "no"), News("heal", NOW, "", "a", "a.0")]
    who = told(on=["crash", "rollout.failed"], groups=["b"])

    assert [(one.news.kind, one.news.group) for one in after(*news, who=who).messages] == [
        ("crash", "b"),
        ("rollout.failed", ""),
    ]


def test_by_default_what_went_wrong_is_told() -> None:
    news = [crash(), News("rollout.done", NOW), News("rollout.failed", NOW)]
    who = Notification.model_validate({"command": ["x"]})

    assert [one.news.kind for one in after(*news, who=who).messages] == ["crash", "rollout.failed"]


def test_the_past_is_told_to_nobody() -> None:
    assert after(crash(at=NOW - OLDEST_NEWS_SECONDS - 1)).messages == ()


def test_what_fails_is_tried_again_after_growing_pauses_and_given_up_after_a_day() -> None:
    spool, now, pauses = after(crash()), NOW, []
    for _ in range(9):
        message = next_due(spool, now=now)
        assert message is not None
        spool, message = begun(spool, message)
        spool = failed(spool, message, "no route", now=now)
        next_at = spool.next_at()
        assert next_at is not None
        assert next_due(spool, now=next_at - 0.001) is None
        pauses.append(next_at - now)
        now = next_at
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert (spool.error, len(spool.failing)) == ("no route", 1)

    late = NOW + GIVE_UP_SECONDS
    spool, message = begun(spool, spool.messages[0])
    spool = failed(spool, message, "no route", now=late)
    assert (spool.messages, spool.dropped, spool.error) == ((), 1, "no route")


def test_a_receiver_that_is_down_is_asked_once_for_all_that_waits() -> None:
    spool = after(crash("a"), crash("b"), crash("c"))
    message = next_due(spool, now=NOW)
    assert message is not None
    spool, message = begun(spool, message)
    spool = failed(spool, message, "down", now=NOW)

    assert next_due(spool, now=NOW) is None
    assert len(spool.failing) == 3


def test_a_message_that_is_refused_holds_up_no_other() -> None:
    spool, now = after(crash("bad"), crash("b"), crash("c")), NOW
    for _ in range(6):
        message = next_due(spool, now=now)
        if message is None:
            now += 5
            continue
        spool, message = begun(spool, message)
        is_bad = message.news.group == "bad"
        spool = failed(spool, message, "refused", now=now) if is_bad else arrived(spool, message)
    assert [one.news.group for one in spool.messages] == ["bad"]
    assert (spool.sent, spool.error) == (2, "refused")


def test_a_sender_that_dies_sends_once_more_and_never_a_third_time() -> None:
    spool = after(crash())
    sent = 0
    for _ in range(5):  # each of them dies in the middle of its attempt
        spool = settled(spool)
        message = next_due(spool, now=NOW)
        if message is not None:
            sent += 1
            spool, _ = begun(spool, message)
    assert sent == 2
    assert settled(spool).messages == ()


def test_whoever_is_no_receiver_any_more_is_forgotten() -> None:
    spool = after(crash(), crash())
    other = told(webhook={"url": "http://other/"})

    changed = taken(spool, [], [other], cursor=HERE, now=NOW)

    assert (changed.messages, changed.windows) == ((), {})


def test_another_text_is_the_same_receiver() -> None:
    spool = after(crash())

    assert len(taken(spool, [], [told(template="{kind}")], cursor=HERE, now=NOW).messages) == 1


@given(st.lists(st.tuples(st.floats(0, 2000), st.sampled_from("abc")), max_size=60))
def test_every_piece_of_news_is_counted_exactly_once(rows: list[tuple[float, str]]) -> None:
    spool = Spool()
    for seconds, group in sorted(rows):
        spool = after(crash(group, at=NOW + seconds), spool=spool, now=NOW + seconds)
    for look in range(1, 4):
        spool = taken(spool, [], [told()], cursor=HERE, now=NOW + 2000 + 301 * look)

    assert sum(one.count for one in spool.messages) == len(rows)


def test_a_spool_has_bounds() -> None:
    news = [replace(crash(), group=f"g{number}") for number in range(MOST_MESSAGES + 10)]

    spool = after(*news)

    assert (len(spool.messages), spool.dropped) == (MOST_MESSAGES, 10)
