"""The green pools, each in a process of its own that was patched first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pools import PoolUnavailable, get_pool
from pools.patching import GREEN, patch

ROOT = Path(__file__).parents[2]

every_green_pool = pytest.mark.parametrize("kind", GREEN)


def run_patched(kind: str, *arguments: str) -> None:
    """Run pytest in a process patched for ``kind``; what failed there is shown here."""
    command = [sys.executable, "-m", "tests.pools.patched", kind, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"{' '.join(command[1:])}\n{done.stdout}\n{done.stderr}"


@every_green_pool
def test_a_green_pool_keeps_the_contract(kind: str) -> None:
    run_patched(kind, "tests/pools/test_contract.py", "-k", kind)


@every_green_pool
def test_a_green_pool_keeps_its_own_promises(kind: str) -> None:
    run_patched(kind, "tests/pools/green_cases.py")


@every_green_pool
def test_an_unpatched_process_is_refused(kind: str) -> None:
    with pytest.raises(PoolUnavailable, match=f"patched for {kind} before anything else was imported") as refused:
        get_pool(kind, 2)
    assert f"pools.patching.patch({kind!r})" in refused.value.hint


@every_green_pool
def test_patching_too_late_is_refused_and_names_who_was_first(kind: str) -> None:
    import asyncio  # noqa: F401  (as most programs have by the time they think of patching)

    with pytest.raises(PoolUnavailable, match=r"too late .*asyncio"):
        patch(kind)


def test_eventlet_that_is_not_installed_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['eventlet'] = None\n"
        "from pools import get_pool, PoolUnavailable\n"
        "try: get_pool('eventlet')\n"
        "except PoolUnavailable as error: print(error, error.hint)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "the eventlet pool needs eventlet" in done.stdout
    assert "pip install 'workerfleet[eventlet]'" in done.stdout
