"""What a process does before it forks."""

from __future__ import annotations

import gc
import sys

import pytest

from pools.freeze import freeze_for_forks


def test_garbage_goes_before_the_rest_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another order garbage would be kept for good, or objects would be made that are not frozen."""
    done: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    cleared = ["clear type cache"] if sys.version_info < (3, 12) else []
    monkeypatch.setattr(sys, "_clear_type_cache", lambda: done.append("clear type cache"), raising=False)
    freeze_for_forks()
    assert done == ["collect", *cleared, "freeze"]


def test_what_there_is_is_out_of_the_collectors_sight() -> None:
    kept = [object() for _ in range(3)]
    kept.append(kept)
    try:
        freeze_for_forks()
        assert gc.get_freeze_count() > 0
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()
