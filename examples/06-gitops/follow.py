"""GitOps on one machine: a bare repository, commits, pushes, and the fleet that follows them; about a minute.

Each step shows what a person would type and checks what it promises. Everything lives in a temporary folder. Ends with
1 when a promise was not kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FLEET = Path(sys.executable).parent / "fleet"
PATIENCE_SECONDS = 150.0
SENDER = """\
from shop_tasks import tasks
for number in range(40):
    tasks.send("shop_tasks.thumb", [{path!r}, number], queue="thumbs")
"""


class Broken(Exception):
    """A promise that was not kept."""


class Example:
    """A repository, somebody's clone of it, and the fleet that follows."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-gitops-", dir="/tmp"))  # a socket path must be short
        self.bare, self.clone = self.folder / "deploy.git", self.folder / "deploy"
        self.source = self.folder / "source.yaml"
        shutil.copy(HERE / "source.yaml", self.source)
        person = {f"GIT_{who}_NAME": "Ana" for who in ("AUTHOR", "COMMITTER")}
        person |= {f"GIT_{who}_EMAIL": "ana@example.com" for who in ("AUTHOR", "COMMITTER")}
        home = {"FLEET_HOME": str(self.folder / "home"), "DEPLOY_REPOSITORY": str(self.bare), "NO_COLOR": "1"}
        path = f"{FLEET.parent}:{os.environ.get('PATH', '')}"
        self.env = {**os.environ, **person, **home, "PATH": path, "GIT_CONFIG_GLOBAL": "/dev/null"}
        self.follower: subprocess.Popen[bytes] | None = None

    def run(self, *words: str, folder: Path | None = None, codes: tuple[int, ...] = (0,), show: bool = True) -> str:
        """Run a command; what it printed."""
        if show:
            print(f"$ {' '.join(Path(word).name if word.startswith('/') else word for word in words)}", flush=True)
        where = folder or self.folder
        done = subprocess.run(words, cwd=where, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode not in codes:
            raise Broken(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def git(self, *words: str, show: bool = True) -> str:
        """git in the clone."""
        return self.run("git", *words, folder=self.clone, show=show).strip()

    def push(self, message: str, *flags: str) -> str:
        """Commit what was edited and push it; the commit."""
        self.git("add", "-A", show=False)
        self.git("commit", "-q", "-m", message)
        self.git("push", "-q", *flags, "origin", "main")
        return self.git("rev-parse", "HEAD", show=False)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file of the clone."""
        path = self.clone / name
        if old not in path.read_text():
            raise Broken(f"{old!r} is not in {name}")
        path.write_text(path.read_text().replace(old, new))

    def status(self) -> dict[str, Any]:
        """How far the source got."""
        said = self.run(str(FLEET), "sync", "status", "gitops", "-o", "json", show=False)
        document: dict[str, Any] = json.loads(said)
        return document

    def pids(self) -> dict[str, int]:
        """Replica -> process, of those that are ready."""
        said = self.run(str(FLEET), "status", "--fleet", "gitops", "-o", "json", show=False)
        workers = [one for group in json.loads(said)["groups"].values() for one in group["workers"]]
        return {one["name"]: one["pid"] for one in workers if one["state"] == "ready" and one["pid"]}

    def condition(self, stage: str) -> dict[str, Any]:
        """One stage of the source."""
        row: dict[str, Any] = next(row for row in self.status()["conditions"] if row["type"] == stage)
        return row

    def wait(self, what: str, check: Callable[[], Any]) -> None:
        """Wait for something that must come."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not check():
            if time.monotonic() > end:
                raise Broken(f"did not happen: {what}\n{self.run(str(FLEET), 'sync', 'status', 'gitops', show=False)}")
            time.sleep(0.2)
        print(f"  ✓ {what}", flush=True)

    def applied(self, commit: str) -> bool:
        """The fleet is at a commit."""
        return bool(self.status()["lastAppliedRevision"] == commit)

    def close(self) -> None:
        """Everything ends."""
        if self.follower is not None and self.follower.poll() is None:
            self.follower.send_signal(signal.SIGTERM)
            self.follower.wait()
        down = [str(FLEET), "down", "--fleet", "gitops", "--yes", "--adopt"]
        subprocess.run(down, env=self.env, capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def publish(example: Example) -> None:
    """A repository with a manifest and its code, and a fleet that follows it."""
    example.run("git", "init", "-q", "--bare", "-b", "main", str(example.bare))
    example.run("git", "clone", "-q", str(example.bare), str(example.clone))
    shutil.copytree(HERE / "deploy", example.clone, dirs_exist_ok=True)
    example.git("checkout", "-q", "-B", "main", show=False)
    first = example.push("the shop")
    example.run(str(FLEET), "sync", "check", str(example.source))
    print("$ fleet sync run source.yaml &", flush=True)
    log = (example.folder / "sync.log").open("wb")
    example.follower = subprocess.Popen([FLEET, "sync", "run", example.source], env=example.env, stderr=log)
    example.wait(
        "fleet sync knows the source", lambda: (example.folder / "home/.sources/gitops/reconciled.json").exists()
    )
    example.wait("the fleet is there", lambda: example.applied(first))


def scale(example: Example) -> None:
    """A commit that scales: the fleet follows, and nobody who stays is restarted."""
    before = example.pids()
    example.edit("fleet.yaml", "replicas: 2, queues: [thumbs]", "replicas: 4, queues: [thumbs]")
    commit = example.push("four thumbs")
    example.wait("the fleet follows the push", lambda: example.applied(commit))
    after = example.pids()
    if not before.items() <= after.items() or len(after) != len(before) + 2:
        raise Broken(f"workers were restarted by a scaling: {before} -> {after}")
    print("  ✓ no worker that stays was restarted")


def work(example: Example, version: str) -> None:
    """Tasks run, by this version of the code."""
    done = example.folder / f"done-{version}"
    url = f"redis+socket://{example.folder}/home/gitops/run/broker.sock?virtual_host=0"
    env = {**example.env, "FLEET_BROKER_URL": url}
    wanted = Counter(f"{number} {version}" for number in range(40))
    code = SENDER.format(path=str(done))
    subprocess.run([sys.executable, "-c", code], cwd=HERE / "deploy", env=env, check=True)
    told = f"40 tasks are done, each once, by version {version}"
    example.wait(told, lambda: done.exists() and Counter(done.read_text().split("\n")[:-1]) == wanted)


def broken_manifest(example: Example) -> None:
    """A typing mistake: nothing is touched, the status says where it is, and the last good revision is healed."""
    good, before = example.status()["lastAppliedRevision"], example.pids()
    example.edit("fleet.yaml", "replicas: 4", "replicsa: 4")
    bad = example.push("a typing mistake")
    lines = (example.clone / "fleet.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "replicsa" in text)
    wanted = f"commit {bad[:12]}: fleet.yaml:{line}:"
    example.wait("the status says which commit and line", lambda: wanted in example.condition("Valid")["message"])
    os.kill(before["thumbs.3"], signal.SIGKILL)
    example.wait(
        "a killed worker is back", lambda: example.pids().get("thumbs.3", before["thumbs.3"]) != before["thumbs.3"]
    )
    if not example.applied(good):
        raise Broken("the last good revision was left")
    example.edit("fleet.yaml", "replicsa: 4", "replicas: 4")
    fixed = example.push("corrected")
    example.wait("the correction is followed", lambda: example.applied(fixed))


def broken_code(example: Example) -> None:
    """Code that cannot be imported: the rollout fails, is rolled back, and is not tried again."""
    good = example.status()["lastAppliedRevision"]
    example.edit("shop_tasks.py", 'VERSION = "1"', 'VERSION = "2" + 2')
    bad = example.push("version 2, broken")
    example.wait(
        "the rollout failed and was rolled back", lambda: example.condition("Applying")["reason"] == "RolledBack"
    )
    status = example.status()
    if (status["lastAttemptedRevision"], status["lastAppliedRevision"]) != (bad, good):
        raise Broken(f"not rolled back: {status}")
    work(example, "1")
    example.edit("shop_tasks.py", 'VERSION = "2" + 2', 'VERSION = "2"')
    fixed = example.push("version 2")
    example.wait("the fixed code is rolled out", lambda: example.applied(fixed))
    work(example, "2")


def force_push(example: Example) -> None:
    """A history that was rewritten is refused."""
    good = example.status()["lastAppliedRevision"]
    example.git("reset", "-q", "--hard", "HEAD~2")
    (example.clone / "note").write_text("another history\n")
    example.push("rewritten", "--force")
    example.wait(
        "a rewritten history is refused", lambda: example.condition("Verified")["reason"] == "HistoryRewritten"
    )
    if not example.applied(good):
        raise Broken("the rewritten history was followed")


def by_hand(example: Example) -> None:
    """A change by hand says who owns the fleet."""
    print("$ fleet apply fleet.yaml")
    words = [str(FLEET), "apply", "fleet.yaml"]
    done = subprocess.run(words, cwd=example.clone, env=example.env, capture_output=True, text=True, check=False)
    if done.returncode != 9 or "belongs to the source 'gitops'" not in done.stderr:
        raise Broken(f"apply by hand ended with {done.returncode}: {done.stderr}")
    print("  ✓ fleet apply says that the fleet belongs to its source")


def in_ci(example: Example) -> None:
    """What the two CI examples run on a pull request, line by line."""
    example.git("fetch", "-q", "origin", show=False)
    example.git("checkout", "-q", "-B", "feature", show=False)
    example.edit("fleet.yaml", "replicas: 4, queues: [thumbs]", "replicas: 5, queues: [thumbs]")
    example.git("commit", "-qam", "five thumbs")
    example.env |= {"GITHUB_BASE_REF": "main", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    for file in (".github/workflows/fleet.yml", ".gitlab-ci.yml"):
        for line in re.findall(r"- (?:run: )?(fleet .+)$", (HERE / "deploy" / file).read_text(), flags=re.MULTILINE):
            example.run("sh", "-c", line, folder=example.clone)
        plan = (example.clone / "plan.md").read_text()
        if "| thumbs.4 | start | scale up 4 -> 5 |" not in plan:
            raise Broken(f"{file}: {plan}")
        print(f"  ✓ the plan of {file} says what the merge would do")
    print(plan)


def main() -> int:
    """The whole story; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    example = Example()
    steps = (publish, scale, broken_manifest, broken_code, force_push, by_hand, in_ci)
    try:
        for step in steps:
            print(f"\n{(step.__doc__ or '').splitlines()[0]}", flush=True)
            step(example)
    except Broken as error:
        print(f"\n{error}\n{(example.folder / 'sync.log').read_text()[-3000:]}", file=sys.stderr)
        return 1
    finally:
        example.close()
    print("\nEvery promise was kept.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
