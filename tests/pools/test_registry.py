"""From names to pools, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pools
from pools import TRAITS, BasePool, PoolUnavailable, available, get_pool, pool_class
from pools.traits_table import BEGIN, END, with_current_table
from tests.pools import tasks

ROOT = Path(__file__).parents[2]


class Mine(BasePool):
    """The least that a pool of one's own needs: nothing."""


class NotAPool:
    pass


def test_a_name_or_a_path_makes_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", f"{__name__}:Mine")

    for name in ("custom", f"{__name__}:Mine"):
        pool = get_pool(name, 3)
        assert type(pool) is Mine
        assert pool.apply_async(tasks.add, (1,), {"b": 2}).result() == 3
    assert "custom" in available()
    assert pool_class("processes") is pool_class("prefork")


def test_the_fleet_variable_wins_and_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "no.such:Pool")
    monkeypatch.setenv("FLEET_CUSTOM_WORKER_POOL", f"{__name__}:Mine")

    assert pool_class("custom") is Mine


@pytest.mark.parametrize(
    ("name", "problem", "hint"),
    [
        ("preforc", "unknown pool 'preforc'", "did you mean 'prefork'"),
        ("custom", "needs a class", "FLEET_CUSTOM_WORKER_POOL"),
        ("no.such.module:Pool", "cannot import", "installed"),
        (f"{__name__}:Missing", "cannot import", "spelled"),
        (f"{__name__}:NotAPool", "not a pool class", "BasePool"),
        (f"{__name__}:", "does not name", "module:Class"),
    ],
)
def test_a_wrong_name_says_what_to_do(name: str, problem: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CELERY_CUSTOM_WORKER_POOL", "FLEET_CUSTOM_WORKER_POOL"):
        monkeypatch.delenv(variable, raising=False)

    with pytest.raises(PoolUnavailable, match=problem) as refused:
        pool_class(name)
    assert hint in refused.value.hint


def test_every_row_of_the_table_is_a_pool_or_says_why_not() -> None:
    for name, row in TRAITS.items():
        if row.is_green:
            continue  # in a process of their own, below
        if name in available():
            assert name == "custom" or pool_class(name).traits is row
        else:
            with pytest.raises(PoolUnavailable) as refused:
                pool_class(name)
            assert refused.value.hint


@pytest.mark.parametrize("name", [name for name, row in TRAITS.items() if row.is_green])
def test_a_green_row_is_a_pool_too(name: str) -> None:
    code = (
        f"import pools.patching; pools.patching.patch({name!r})\n"
        f"from pools import TRAITS, pool_class; print(pool_class({name!r}).traits is TRAITS[{name!r}])"
    )
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.strip() == "True", out.stderr


def test_importing_pools_pulls_in_no_engine() -> None:
    heavy = ["billiard", "gevent", "eventlet", "kombu", "celery", "fleet", "multiprocessing", "asyncio", "selectors"]
    code = f"import sys, pools, pools.traits; print([name for name in {heavy} if name in sys.modules])"

    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in pools.__all__:
        assert getattr(pools, name) is not None
    with pytest.raises(AttributeError):
        _ = pools.no_such_name


def test_the_table_in_the_documentation_is_current() -> None:
    text = (ROOT / "docs" / "pools.md").read_text(encoding="utf-8")

    assert BEGIN in text
    assert END in text
    assert text == with_current_table(text), "run: python -m pools.traits_table docs/pools.md"


def test_asking_what_is_available_imports_no_library() -> None:
    heavy = ("gevent", "eventlet", "billiard")
    code = f"import sys, pools; pools.available(); print([name for name in {heavy} if name in sys.modules])"

    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
