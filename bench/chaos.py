"""Ten minutes of faults against two fleets under load: no task is lost, and both are as they should be without help.

One fleet follows a git repository (``fleet sync run``), the other is kept by ``fleet run`` and changed from the command
line. Numbered tasks come all the time. At random moments, drawn from a seed that is printed: kill -9 and SIGSTOP of
workers, children, controllers, supervisord and the two keepers, restarts of the broker, a full disk, deleted and
damaged records, live scaling, edits, rollouts, pushes good and bad. Keepers that were killed are started again, as
systemd does. The broker is a Redis with an append-only file and its own disk, so that it loses nothing itself. Ends
with 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import figures
import psutil
import servers

from fleet import Tasks
from fleet.replica.record import RecordView, read

LOAD = Path(__file__).resolve().parent / "load"
FLEET = str(figures.BIN / "fleet")
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = (2.0, 6.0)
RATE_PER_SECOND = 15.0
TASK_SECONDS = (0.05, 1.0)
DISK_MB = 64
ENDS_STOPPED = 2
"""So often at most a replica is stopped for good: the controller gives up after three heals within ten minutes."""

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: {name}}}
spec:
  app: bench_chaos:tasks
  release: {{workdir: {load}}}
  broker: {{url: "{broker}"}}
  concurrency: 14
  balance: {{tick: 2s}}
  defaults: {{task: {{maxAttempts: 50}}, drain: {{timeout: 20s}}, env: {{CHAOS: "{edition}"}}}}
  groups:
    {name}-solo: {{pool: solo, replicas: {replicas}, queues: [{name}-solo]}}
    {name}-fork: {{pool: {{type: prefork, concurrency: 2}}, replicas: 1, queues: [{name}-fork]}}
    {name}-auto: {{pool: {{type: {pool}, concurrency: 2}}, queues: [{name}-auto], autoscale: {{min: 1, max: 8}}}}
"""
SOURCE = """\
apiVersion: workerfleet.dev/v1alpha1
kind: FleetSource
metadata: {{name: chaos}}
spec:
  git: {{url: {url}, ref: {{branch: main}}, paths: [fleet.yaml]}}
  interval: 1s
  retry: {{initial: 1s, max: 5s}}
  prune: true
"""
POOLS = {"pushed": "threads", "edited": "gevent"}


class Broken(Exception):
    """A promise that was not kept."""


def wait(what: str, check: Callable[[], Any]) -> float:
    """Wait for something that must come; the seconds it took."""
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise Broken(f"did not happen: {what}")
        time.sleep(0.5)
    return time.monotonic() - began


class Broker:
    """A Redis with an append-only file, on a port that stays the same through its restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = servers.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it reads its file first."""
        self.folder.mkdir(exist_ok=True)
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            raise SystemExit("bench: no redis-server; run `make servers`")
        flags = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        command = [binary, "--port", str(self.port), *flags, "--dir", str(self.folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """As ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class Fleet:
    """One of the two, its keeper and its manifest."""

    name: str
    folder: Path
    home: Path
    broker: str
    keeper_command: tuple[str, ...]
    replicas: int = 2
    edition: int = 0
    keeper: subprocess.Popen[bytes] | None = None
    stopped: Counter[str] = field(default_factory=Counter)

    @property
    def run_folder(self) -> Path:
        """What it writes while it runs."""
        return self.home / self.name / "run"

    def text(self) -> str:
        """Its manifest."""
        return MANIFEST.format(
            name=self.name,
            load=LOAD,
            broker=self.broker,
            edition=self.edition,
            replicas=self.replicas,
            pool=POOLS[self.name],
        )

    def env(self) -> dict[str, str]:
        """What its commands run with."""
        base = {key: value for key, value in os.environ.items() if not key.startswith("FLEET_")}
        return {**base, "FLEET_HOME": str(self.home), "NO_COLOR": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def keep(self) -> None:
        """Start its keeper, or start it again."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.keeper = subprocess.Popen(
                [FLEET, *self.keeper_command],
                env=self.env(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A verb on it."""
        return subprocess.run(
            [FLEET, *words], env=self.env(), cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    def records(self) -> dict[str, RecordView]:
        """Replica -> its record, of those whose process lives."""
        found = {path.stem: read(path) for path in sorted((self.run_folder / "records").glob("*.rec"))}
        return {name: one for name, one in found.items() if one is not None and psutil.pid_exists(one.pid)}

    def workers(self) -> dict[str, RecordView]:
        """As ``records``, of its workers alone."""
        return {name: one for name, one in self.records().items() if not name.startswith("fleet-")}

    def supervisord(self) -> int | None:
        """Its pid."""
        try:
            pid = int((self.run_folder / "supervisord.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if psutil.pid_exists(pid) else None

    def is_well(self) -> bool:
        """Everything is there, ready, and up to date with what it should be."""
        return self.command("status", "--fleet", self.name, "--exit-code").returncode == 0

    def holds(self) -> int:
        """Tasks that its workers hold now: what a kill of all of them may cost."""
        return sum(max(one.reserved, one.slots) for one in self.workers().values())


class Load:
    """Numbered tasks, at a steady rate. One that may or may not have been taken by the broker is sent again."""

    def __init__(self, broker: str, journal: Path, *, rng: random.Random) -> None:
        self.journal = journal
        self.sent = 0
        self.unsure: set[int] = set()
        self._queues = [f"{name}-{group}" for name in POOLS for group in ("solo", "fork", "auto")]
        self._producer = Tasks("load", broker=broker)
        self._rng = rng
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def end(self) -> None:
        """No more come, once the last one was taken."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self._send(self.sent)
            self.sent += 1
            self._over.wait(self._rng.expovariate(RATE_PER_SECOND))

    def _send(self, number: int) -> None:
        arguments = [str(self.journal), number, self._rng.uniform(*TASK_SECONDS)]
        queue = self._rng.choice(self._queues)
        while True:
            try:
                self._producer.send("chaos.work", arguments, queue=queue)
            except Exception:  # whatever the broker's library raises
                self.unsure.add(number)
                time.sleep(0.2)
            else:
                return

    def counts(self) -> tuple[Counter[int], Counter[int]]:
        """How often each number began, and ended."""
        counts: dict[str, Counter[int]] = {"began": Counter(), "ended": Counter()}
        for line in self.journal.read_text().splitlines():
            what, number = line.split()
            counts[what][int(number)] += 1
        return counts["began"], counts["ended"]


class Chaos:
    """What is done to the fleets. Each deed says what it did, and adds to ``allowed`` what may run again for it."""

    def __init__(self, fleets: dict[str, Fleet], broker: Broker, clone: Path, disk: Path | None, rng: random.Random):
        self.fleets, self.broker, self.clone, self.disk, self.rng = fleets, broker, clone, disk, rng
        self.done: Counter[str] = Counter()
        self.allowed = 0
        self.codes: Counter[str] = Counter()
        self._busy: list[threading.Thread] = []

    def deeds(self) -> list[tuple[int, Callable[[Fleet], str]]]:
        """Each with its weight."""
        found = [
            (4, self.kill_worker),
            (3, self.kill_child),
            (2, self.stop_worker),
            (2, self.stop_worker_a_while),
            (1, self.kill_controller),
            (1, self.stop_controller),
            (1, self.kill_supervisord),
            (1, self.stop_supervisord_a_while),
            (1, self.kill_keeper),
            (2, self.restart_broker),
            (1, self.delete_record),
            (1, self.damage_record),
            (2, self.scale_live),
            (3, self.change),
            (1, self.push_nonsense),
        ]
        return [*found, (1, self.fill_disk)] if self.disk is not None else found

    def one(self) -> str:
        """Any of them, to one of the fleets."""
        weights, deeds = zip(*self.deeds(), strict=True)
        fleet = self.fleets[self.rng.choice(sorted(self.fleets))]
        deed = self.rng.choices(deeds, weights)[0]
        try:
            what = deed(fleet)
        except (psutil.Error, ProcessLookupError, FileNotFoundError):
            what = ""  # it was gone before
        if what:
            self.done[deed.__name__.replace("_", " ")] += 1
        return f"{fleet.name}: {what}" if what else ""

    def join(self) -> None:
        """Until everything that takes its time is over."""
        for thread in self._busy:
            thread.join()

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        def run() -> None:
            time.sleep(seconds)
            act()

        thread = threading.Thread(target=run)
        self._busy.append(thread)
        thread.start()

    def _worker(self, fleet: Fleet) -> tuple[str, RecordView]:
        workers = sorted(fleet.workers().items())
        if not workers:
            raise FileNotFoundError
        return self.rng.choice(workers)

    # --- processes

    def kill_worker(self, fleet: Fleet) -> str:
        name, record = self._worker(fleet)
        self.allowed += max(record.reserved, record.slots)
        os.kill(record.pid, signal.SIGKILL)
        return f"kill -9 {name}"

    def kill_child(self, fleet: Fleet) -> str:
        forks = [one for name, one in sorted(fleet.workers().items()) if "-fork." in name]
        children = [child for one in forks for child in psutil.Process(one.pid).children()]
        if not children:
            return ""
        self.allowed += 1
        child = self.rng.choice(children)
        child.kill()
        return f"kill -9 of a child, {child.pid}"

    def stop_worker(self, fleet: Fleet) -> str:
        name, record = self._worker(fleet)
        if fleet.stopped[name] >= ENDS_STOPPED:
            return ""
        fleet.stopped[name] += 1
        self.allowed += max(record.reserved, record.slots)
        os.kill(record.pid, signal.SIGSTOP)
        return f"SIGSTOP {name}"

    def stop_worker_a_while(self, fleet: Fleet) -> str:
        name, record = self._worker(fleet)
        return self._stopped_a_while(record.pid, name, most_seconds=8.0)

    def _stopped_a_while(self, pid: int, name: str, *, most_seconds: float) -> str:
        seconds = self.rng.uniform(1.0, most_seconds)
        process = psutil.Process(pid)
        process.suspend()

        def go_on() -> None:
            with contextlib.suppress(psutil.Error):
                process.resume()

        self._later(seconds, go_on)
        return f"SIGSTOP {name} for {seconds:.0f} s"

    def kill_controller(self, fleet: Fleet) -> str:
        controller = fleet.records().get("fleet-controller.0")
        if controller is None:
            return ""
        os.kill(controller.pid, signal.SIGKILL)
        return "kill -9 of the controller"

    def stop_controller(self, fleet: Fleet) -> str:
        controller = fleet.records().get("fleet-controller.0")
        if controller is None:
            return ""
        os.kill(controller.pid, signal.SIGSTOP)
        return "SIGSTOP of the controller"

    def kill_supervisord(self, fleet: Fleet) -> str:
        pid = fleet.supervisord()
        if pid is None:
            return ""
        self.allowed += fleet.holds()
        os.kill(pid, signal.SIGKILL)
        return "kill -9 of supervisord"

    def stop_supervisord_a_while(self, fleet: Fleet) -> str:
        pid = fleet.supervisord()
        return self._stopped_a_while(pid, "supervisord", most_seconds=20.0) if pid is not None else ""

    def kill_keeper(self, fleet: Fleet) -> str:
        assert fleet.keeper is not None
        fleet.keeper.kill()
        fleet.keeper.wait()
        self._later(1.0, fleet.keep)
        return "kill -9 of its keeper"

    # --- what they stand on

    def restart_broker(self, _fleet: Fleet) -> str:
        self.broker.kill()
        time.sleep(self.rng.uniform(0.2, 3.0))
        self.broker.start()
        return "the broker is killed and started again"

    def fill_disk(self, _fleet: Fleet) -> str:
        assert self.disk is not None
        seconds, filling = self.rng.uniform(3.0, 10.0), self.disk / "filling"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError), filling.open("ab", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
            time.sleep(0.1)
        filling.unlink()
        return f"a full disk for {seconds:.0f} s"

    def delete_record(self, fleet: Fleet) -> str:
        name, _ = self._worker(fleet)
        (fleet.run_folder / "records" / f"{name}.rec").unlink()
        return f"the record of {name} is deleted"

    def damage_record(self, fleet: Fleet) -> str:
        name, _ = self._worker(fleet)
        with (fleet.run_folder / "records" / f"{name}.rec").open("r+b") as file:
            file.write(b"\xff\x00{" * 50)
        return f"the record of {name} is overwritten"

    # --- what people do

    def scale_live(self, fleet: Fleet) -> str:
        words = ("scale", f"{fleet.name}-solo={self.rng.randint(1, 4)}", "--live", "--for", "15s", "--yes")
        return self._said(fleet, *words, "--fleet", fleet.name)

    def change(self, fleet: Fleet) -> str:
        """Replicas come or go, or all are replaced: by a push, or by an edit and an apply."""
        if self.rng.random() < 0.5:
            fleet.replicas = self.rng.randint(1, 3)
        else:
            fleet.edition += 1
        what = f"{fleet.replicas} solo replicas, edition {fleet.edition}"
        if fleet.name == "pushed":
            push(self.clone, fleet.text(), what)
            return f"push: {what}"
        (fleet.folder / "edited.yaml").write_text(fleet.text())
        return self._said(fleet, "apply", "edited.yaml", "--yes")

    def push_nonsense(self, _fleet: Fleet) -> str:
        fleet = self.fleets["pushed"]
        push(self.clone, fleet.text().replace("replicas", "replicsa"), "nonsense")
        self._later(3.0, lambda: push(self.clone, fleet.text(), "put right"))
        return "push: a manifest with a mistake"

    def _said(self, fleet: Fleet, *words: str) -> str:
        """In the background, as a person would; the exit code is counted."""

        def run() -> None:
            done = fleet.command(*words)
            self.codes[f"{words[0]} {done.returncode}"] += 1
            if "Traceback" in done.stderr:
                print(f"TRACEBACK of {words}:\n{done.stderr}", flush=True)
                self.codes["tracebacks"] += 1

        self._later(0.0, run)
        return " ".join(words)


_pushing = threading.Lock()


def push(clone: Path, text: str, message: str) -> None:
    """Commit a manifest and push it."""
    person = {f"GIT_{who}_{what}": "ana" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **person, "GIT_CONFIG_GLOBAL": "/dev/null"}
    with _pushing:
        (clone / "fleet.yaml").write_text(text)
        for words in (
            ("add", "-A"),
            ("commit", "-q", "--allow-empty", "-m", message),
            ("push", "-q", "origin", "main"),
        ):
            subprocess.run(["git", *words], cwd=clone, env=env, check=True, capture_output=True)


def repository(folder: Path) -> tuple[Path, Path]:
    """An empty bare repository, and a clone of it."""
    bare, clone = folder / "deploy.git", folder / "deploy"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(clone)], check=True)
    subprocess.run(["git", "remote", "add", "origin", str(bare)], cwd=clone, check=True)
    return bare, clone


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own for what fleets write; None, with a word why, where this user may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"no full disk: {done.stderr.strip()}", flush=True)
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def strays(folder: Path, fleets: dict[str, Fleet]) -> list[str]:
    """Processes of these fleets that neither a supervisord nor a keeper has below it."""
    roots = [fleet.supervisord() for fleet in fleets.values()]
    roots += [fleet.keeper.pid for fleet in fleets.values() if fleet.keeper is not None]
    known = {process.pid for root in roots if root is not None for process in figures.tree(root)}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = process.environ().get("FLEET_HOME", "").startswith(str(folder))
            if mine and process.pid not in known and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


def measured(folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """All of it, in a folder of its own."""
    rng = random.Random(seed)
    broker = Broker(folder / "redis")
    broker.start()
    bare, clone = repository(folder)
    with small_disk(folder / "h") as disk:
        home = folder / "h"
        pushed = Fleet("pushed", folder, home, broker.url, ("sync", "run", "source.yaml"))
        edited = Fleet("edited", folder, home, broker.url, ("run", "edited.yaml", "--keep-going"))
        fleets = {"pushed": pushed, "edited": edited}
        (folder / "source.yaml").write_text(SOURCE.format(url=bare))
        (folder / "edited.yaml").write_text(edited.text())
        push(clone, pushed.text(), "the first")
        load = Load(broker.url, folder / "journal", rng=random.Random(seed + 1))
        load.journal.touch()
        chaos = Chaos(fleets, broker, clone, disk, rng)
        try:
            for fleet in fleets.values():
                fleet.keep()
            took = wait("both fleets are up", lambda: all(fleet.is_well() for fleet in fleets.values()))
            print(f"both fleets are up after {took:.0f} s", flush=True)
            load.start()
            return _run(chaos, load, folder, seconds=seconds)
        finally:
            _close(fleets, broker, folder)


def _run(chaos: Chaos, load: Load, folder: Path, *, seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(chaos.rng.uniform(*PAUSE_SECONDS))
        if what := chaos.one():
            print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)
    chaos.join()
    load.end()
    pushed, edited = chaos.fleets["pushed"], chaos.fleets["edited"]
    push(chaos.clone, pushed.text(), "the last")
    over = time.monotonic()
    if edited.command("apply", "edited.yaml", "--yes").returncode:  # a person sees it fail, and types it again
        chaos.codes["applied again at the end"] += 1
        edited.command("apply", "edited.yaml", "--yes", "--retry")
    print(f"faults are over; {load.sent} tasks were sent", flush=True)

    def missing() -> set[int]:
        return set(range(load.sent)) - set(load.counts()[1])

    try:
        wait("every task is done", lambda: not missing())
        done_seconds = time.monotonic() - over
        wait("both fleets are well", lambda: all(fleet.is_well() for fleet in chaos.fleets.values()))
        well_seconds = time.monotonic() - over
        wait("no process is left over", lambda: not strays(folder, chaos.fleets))
        for fleet in chaos.fleets.values():
            files = [str(chaos.clone / "fleet.yaml") if fleet.name == "pushed" else "edited.yaml"]
            wait(f"{fleet.name} is at its manifest", lambda f=fleet, m=files: _is_at(f, m))
    except Broken as error:
        raise Broken(f"{error}\n{_state(chaos, missing(), folder)}") from error
    began_counts, ended = load.counts()
    again = sum(count - 1 for number, count in began_counts.items() if number not in load.unsure)
    ended_twice = sum(count - 1 for number, count in ended.items() if number not in load.unsure)
    return {
        "seconds": seconds,
        "deeds": dict(sorted(chaos.done.items())),
        "exit_codes": dict(sorted(chaos.codes.items())),
        "sent": load.sent,
        "done": len(ended),
        "began_again": again,
        "ended_twice": ended_twice,
        "may_begin_again": chaos.allowed,
        "seconds_until_all_done": round(done_seconds, 1),
        "seconds_until_well": round(well_seconds, 1),
    }


def _is_at(fleet: Fleet, files: list[str]) -> bool:
    """Solo replicas and the edition are those of the manifest; what autoscales is the controller's."""
    done = fleet.command("diff", *files, "-o", "json")
    if done.returncode:
        return False
    rows = json.loads(done.stdout)["differences"]
    return not [row for row in rows if "-auto" not in row["group"] or row["kind"] == "changed"]


def _state(chaos: Chaos, missing: set[int], folder: Path) -> str:
    """What a person would look at."""
    parts = [f"missing: {sorted(missing)[:20]} ({len(missing)})", f"strays: {strays(folder, chaos.fleets)}"]
    for fleet in chaos.fleets.values():
        parts.append(fleet.command("status", "--fleet", fleet.name).stdout)
        events = fleet.command("events", "--fleet", fleet.name).stdout.splitlines()
        parts += ["\n".join(events[-30:]), (folder / f"{fleet.name}.log").read_text()[-3000:]]
    parts.append(chaos.fleets["pushed"].command("sync", "status", "chaos").stdout)
    return "\n".join(parts)


def _close(fleets: dict[str, Fleet], broker: Broker, folder: Path) -> None:
    for fleet in fleets.values():
        if fleet.keeper is not None:
            fleet.keeper.kill()
            fleet.keeper.wait()
        fleet.command("down", "--fleet", fleet.name, "--yes", "--adopt")
    broker.kill()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FLEET_HOME", "").startswith(str(folder)):
                process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long faults come (default 600)")
    parser.add_argument("--seed", type=int, default=None, help="what is drawn; any, and printed, where not given")
    parser.add_argument("--quick", action="store_true", help="one minute: to see that it works, not for figures")
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 31)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))  # a socket path must be short
    print(f"seed {seed}, in {folder}, load {os.getloadavg()[0]:.1f}", flush=True)
    try:
        found = measured(folder, seconds=60.0 if given.quick else given.seconds, seed=seed)
    except Broken as error:
        print(f"chaos: {error}\nseed {seed}", file=sys.stderr)
        return 1
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
    found = {"seed": seed, "load_average": round(os.getloadavg()[0], 1), **found}
    print(json.dumps(found, indent=1))
    if found["ended_twice"] > found["may_begin_again"] or found["exit_codes"].get("tracebacks"):
        print("chaos: more was run again than docs/crashes.md allows", file=sys.stderr)
        return 1
    if not given.quick:
        figures.write("chaos", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
