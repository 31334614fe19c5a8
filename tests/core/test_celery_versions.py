"""What versions of Celery lack, and how the installed one is known."""

from __future__ import annotations

from pathlib import Path

import celery
import pytest

from fleet.core.celery_versions import LACKS, lacks_of, shown, version_in

WORKER_PAGE = Path(__file__).parents[2] / "docs" / "worker.md"


def test_a_version_is_told_only_of_what_it_lacks() -> None:
    newest = version_in(celery.__version__)
    assert newest is not None
    for pool in ("prefork", "gevent", "solo"):
        assert list(lacks_of(newest, pool)) == []
    assert list(lacks_of((5, 4), "prefork")) == []
    assert ["gevent" in what for what in lacks_of((5, 4), "gevent")] == [True]
    assert len(list(lacks_of((5, 2), "gevent"))) == 2


def test_the_page_has_the_same_table() -> None:
    page = WORKER_PAGE.read_text(encoding="utf-8")
    for lack in LACKS:
        assert f"| {shown(lack.until)} | {lack.what}" in page


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("5.3.6", (5, 3)),
        ("celery-5.10.0rc1.dist-info", (5, 10)),
        ("celery-4.4.7.egg-info", (4, 4)),
        ("celery-redbeat-2.0", None),
        ("celery", None),
        ("", None),
    ],
)
def test_a_version_is_read(text: str, version: tuple[int, int] | None) -> None:
    assert version_in(text) == version
