"""Every example runs as its README says, in a small mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.system


def run(script: Path, *words: str) -> str:
    """Run an example with nothing of this machine's fleets in its environment; what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    done = subprocess.run(
        [sys.executable, str(script), *words],
        cwd=script.parent,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"{script.name} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    )
    return done.stdout


def test_the_demo_keeps_every_promise() -> None:
    told = run(EXAMPLES / "quickstart" / "demo.py", "--share", "0.1")
    assert "The demo kept every promise" in told
    assert told.count("✓") == 19


def test_solo_and_prefork_are_measured_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "measured.json"
    told = run(EXAMPLES / "01-solo-vs-prefork" / "measure.py", "--runs", "1", "--count", "50", "--out", str(out))
    assert "memory when idle" in told
    figures = json.loads(out.read_text())["figures"]
    assert set(figures) == {"solo", "prefork"}
    assert all(row["median"] > 0 for shape in figures.values() for row in shape.values())


def test_the_same_work_goes_through_every_pool(tmp_path: Path) -> None:
    out = tmp_path / "measured.json"
    script = EXAMPLES / "02-pools" / "compare.py"
    told = run(script, "--runs", "1", "--waits", "10", "--computes", "2", "--out", str(out))
    assert "waiting, s" in told
    figures = json.loads(out.read_text())["figures"]
    assert set(figures) == {"solo", "prefork", "threads", "gevent", "asyncio"}
    assert all(row["median"] > 0 for pool in figures.values() for row in pool.values())


def test_a_fleet_follows_a_repository() -> None:
    told = run(EXAMPLES / "06-gitops" / "follow.py")
    assert "Every promise was kept." in told
    assert told.count("✓") == 15


def test_slots_follow_the_bursts(tmp_path: Path) -> None:
    out, picture = tmp_path / "measured.json", tmp_path / "balance.png"
    told = run(EXAMPLES / "04-balance" / "load.py", "--quick", "--out", str(out), "--picture", str(picture))
    assert "fleet explain --live" in told
    assert "balance.moved" in told
    found = json.loads(out.read_text())
    assert (found["lost"], found["cut"], found["doubled"]) == (0, 0, 0)
    assert found["mostSlots"] <= found["budget"]
    assert [burst["group"] for burst in found["bursts"]] == ["gevent", "solo"]
    assert all(burst["slotsMost"] > burst["slotsBefore"] for burst in found["bursts"])
    assert picture.stat().st_size
