"""The demo: a fleet from a manifest, real tasks, scaling, a crash; then a shop on every kind of pool; about a minute.

Each step shows the command a person would type, and checks what it promises. The fleets live in a temporary folder; the
manifest that is edited is a copy in it, so the repository stays as it is. Ends with 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
FLEET = Path(sys.executable).parent / "fleet"
PYTHON = Path(sys.executable)
SHOP = "manifests/prod.yaml"
SHOP_POOLS = {"asyncio", "gevent", "prefork", "solo", "threads"}
SHOP_SHARE = 0.5
WORK = {  # task, queue, how many
    ("measure", "thumbs"): 1500,
    ("ask", "thumbs"): 300,
    ("index", "thumbs"): 5,
    ("copy", "reports"): 1000,
    ("measure", "reports"): 300,
    ("index", "reports"): 5,
}


class Broken(Exception):
    """A promise that was not kept."""


class Demo:
    """Two fleets, one after the other, in a folder of their own."""

    def __init__(self, share: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-demo-", dir="/tmp"))  # a socket path must be short
        self.manifest = self.folder / "quickstart.yaml"
        self.work = {key: max(1, round(count * share)) for key, count in WORK.items()}
        self.home = self.folder / "home"
        self.env = {**os.environ, "FLEET_HOME": str(self.home), "SHOP_STATE": str(self.folder / "shop")}

    def fleet(self, *words: str, show: bool = True) -> str:
        """Run a verb as a person would, and show it; with ``show=False`` return what it printed instead."""
        return self.run(FLEET, *words, shown=f"fleet {' '.join(words)}" if show else "")

    def run(self, *words: str | Path, shown: str, folder: Path | None = None) -> str:
        """Run a command in the demo's folder, or in another; where nothing is shown, return what it printed."""
        if shown:
            print(f"\n$ {shown}", flush=True)
        done = subprocess.run(
            words,
            cwd=folder or self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=None if shown else subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Broken(f"`{shown or ' '.join(map(str, words))}` ended with {done.returncode}")
        return done.stdout or ""

    def groups(self) -> dict[str, Any]:
        """The groups as `fleet status -o json` tells them."""
        document: dict[str, Any] = json.loads(self.fleet("status", self.manifest.name, "-o", "json", show=False))
        return document["groups"]

    def pids(self, group: str) -> dict[str, int]:
        """Replica -> process of one group."""
        return {worker["name"]: worker["pid"] for worker in self.groups()[group]["workers"]}

    def processed(self) -> int:
        """Tasks done so far, in all groups."""
        return sum(group["processed"] for group in self.groups().values())

    def left_running(self) -> list[int]:
        """Processes that carry this demo's folder in their command line or environment."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
                if process.pid != os.getpid() and any(str(self.folder) in word for word in words):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found


def title(text: str) -> None:
    """A heading between the steps."""
    print(f"\n━━ {text}", flush=True)


def promise(text: str, *, kept: bool) -> None:
    """Say what was promised, and stop where it does not hold."""
    if not kept:
        raise Broken(text)
    print(f"✓ {text}", flush=True)


def eventually(check: Callable[[], bool], *, within: float) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + within
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.3)
    return True


def work_off(demo: Demo, total: int) -> bool:
    """Wait until all tasks are done, with a bar: redrawn on a terminal, a line now and then elsewhere."""
    redraw = sys.stdout.isatty()
    shown = -1

    def all_done() -> bool:
        nonlocal shown
        done = demo.processed()
        tenths = done * 10 // total
        if redraw or tenths > shown:
            print(f"  {'█' * (tenths * 2):20} {done} of {total} done", end="\r" if redraw else "\n", flush=True)
        shown = tenths
        return done >= total

    finished = eventually(all_done, within=300)
    if redraw:
        print()
    return finished


def start(demo: Demo) -> None:
    """From the manifest to running workers."""
    text = (ROOT / "manifests" / "quickstart.yaml").read_text()
    demo.manifest.write_text(re.sub(r"workdir: [^\s,}]+", f"workdir: {ROOT / 'examples' / 'quickstart'}", text))
    title("The manifest: ten solo workers, one prefork worker with the same ten slots, one external program")
    demo.fleet("validate", demo.manifest.name)
    demo.fleet("apply", demo.manifest.name, "--yes")
    groups = demo.groups()
    promise("ten solo workers are ready", kept=groups["thumbs"]["replicas"]["ready"] == 10)
    promise("one prefork worker brings the same ten slots", kept=groups["reports"]["slots"]["desired"] == 10)


def work(demo: Demo) -> None:
    """Real tasks through both."""
    total = sum(demo.work.values())
    title(f"{total} real tasks on the files of this repository; `index` starts four processes of its own")
    for (task, queue), count in demo.work.items():
        words = ["send", demo.manifest.name, f"demo_tasks.{task}", "--queue", queue, "--count", str(count)]
        demo.fleet(*words)
    began = time.monotonic()
    done = work_off(demo, total)
    promise(f"all {total} tasks were done, {time.monotonic() - began:.0f} s after the last was sent", kept=done)
    demo.fleet("status", demo.manifest.name)
    groups = demo.groups()
    promise("none of them failed", kept=not any(group["failed"] for group in groups.values()))
    shares = [worker["processed"] for worker in groups["thumbs"]["workers"]]
    promise(f"every solo worker took its part ({min(shares)} to {max(shares)} tasks)", kept=min(shares) > 0)


def scale(demo: Demo) -> None:
    """Two more by an edit of the manifest; the ten stay as they are."""
    title("Edit the manifest: replicas 10 becomes 12")
    before = demo.pids("thumbs")
    text, edits = re.subn(r"replicas: 10\b", "replicas: 12", demo.manifest.read_text(), count=1)
    promise("the manifest has a line `replicas: 10`", kept=edits == 1)
    demo.manifest.write_text(text)
    demo.fleet("apply", demo.manifest.name, "--yes")
    after = demo.pids("thumbs")
    promise("twelve run now", kept=len(after) == 12)
    promise(f"the ten kept their processes: {sorted(before.values())}", kept=before.items() <= after.items())


def heal(demo: Demo) -> None:
    """A killed worker comes back by itself."""
    victim = demo.pids("thumbs")["thumbs.3"]
    title(f"A crash: kill -9 {victim}, the process of thumbs.3")
    os.kill(victim, signal.SIGKILL)

    def healed() -> bool:
        worker = next(one for one in demo.groups()["thumbs"]["workers"] if one["name"] == "thumbs.3")
        return worker["state"] == "ready" and worker["pid"] not in {None, victim}

    promise("thumbs.3 is back with another process, without a command", kept=eventually(healed, within=60))
    demo.fleet("status", demo.manifest.name)


def finish(demo: Demo) -> None:
    """Take everything down."""
    title("Take it all down")
    demo.fleet("down", demo.manifest.name, "--yes")
    promise("nothing is left running", kept=eventually(lambda: not demo.left_running(), within=10))


def shop(demo: Demo) -> None:
    """The manifest of README's first page, from the root of the clone: every kind of pool in one budget."""
    title("The shop: five kinds of pool, beat and a web server of the shop's partner, in one budget of 80 slots")

    def show(*words: str) -> None:
        demo.run(FLEET, *words, shown=f"fleet {' '.join(words)}", folder=ROOT)

    show("apply", SHOP, "--yes")
    groups = json.loads(demo.fleet("status", "--fleet", "shop", "-o", "json", show=False))["groups"]
    promise("every kind of pool is there", kept={group["pool"] for group in groups.values()} >= SHOP_POOLS)
    promise("together they have 80 slots", kept=sum(group["slots"]["desired"] for group in groups.values()) == 80)
    send = ("examples/shop/send.py", "--share", str(SHOP_SHARE))
    demo.run(PYTHON, *send, shown=f"python {' '.join(send)}", folder=ROOT)
    show("status", "--fleet", "shop")
    show("explain", "--fleet", "shop", "--live")
    show("down", SHOP, "--yes")
    promise("nothing is left running", kept=eventually(lambda: not demo.left_running(), within=10))


def clean(demo: Demo) -> None:
    """Whatever happened: no process and no file is left."""
    for fleet in sorted(path.name for path in demo.home.glob("*")) if demo.left_running() else ():
        words = [FLEET, "down", "--fleet", fleet, "--yes"]
        subprocess.run(words, cwd=demo.folder, env=demo.env, stdin=subprocess.DEVNULL, check=False)
    for pid in demo.left_running():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(demo.folder, ignore_errors=True)


def interrupted(_signum: int, _frame: FrameType | None) -> None:
    """Turn a termination into an orderly end."""
    raise KeyboardInterrupt


def main() -> int:
    """Every step in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="part of the tasks to send (default 1)")
    signal.signal(signal.SIGTERM, interrupted)
    demo = Demo(parser.parse_args().share)
    began = time.monotonic()
    try:
        for step in (start, work, scale, heal, finish, shop):
            step(demo)
    except Broken as broken:
        print(f"\n✗ not kept: {broken}", file=sys.stderr)
        for log in sorted(demo.home.glob("*/log/*.log")):
            tail = "\n".join(log.read_text().splitlines()[-5:])
            print(f"-- {log.name}\n{tail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        clean(demo)
    print(f"\nThe demo kept every promise, in {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
