"""The options of ``celery worker`` as fields of a group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.authoring.yaml_writer import Draft, span

_VALUES = {
    "-A": "app", "--app": "app", "-c": "concurrency", "--concurrency": "concurrency", "-P": "pool", "--pool": "pool",
    "-Q": "queues", "--queues": "queues", "-l": "level", "--loglevel": "level", "--log-level": "level",
    "-b": "broker", "--broker": "broker", "-n": "hostname", "--hostname": "hostname",
    "--time-limit": "time_limit", "--soft-time-limit": "soft_time_limit", "--workdir": "workdir",
    "--max-tasks-per-child": "max_tasks", "--maxtasksperchild": "max_tasks", "--max-memory-per-child": "max_memory",
    "--prefetch-multiplier": "prefetch", "--autoscale": "autoscale", "-O": "optimization", "-X": "exclude",
    "--exclude-queues": "exclude", "-f": "logfile", "--logfile": "logfile", "--pidfile": "pidfile", "-s": "schedule",
    "--schedule": "schedule", "--uid": "uid", "--gid": "gid", "-S": "statedb", "--statedb": "statedb",
    "--config": "config", "-I": "include", "--include": "include", "--umask": "umask", "--executable": "executable",
    "--heartbeat-interval": "heartbeat", "--result-backend": "result_backend", "--loader": "loader",
}  # fmt: skip
_FLAGS = {
    "-E": "events", "--events": "events", "--task-events": "events", "-B": "beat", "--beat": "beat", "-D": "detach",
    "--detach": "detach", "--purge": "purge", "--without-gossip": "gossip", "--without-mingle": "mingle",
    "--without-heartbeat": "heartbeat", "-q": "quiet", "--quiet": "quiet",
}  # fmt: skip
# What fleet does itself, or what makes no difference to the work: not worth a note.
_SILENT = frozenset({"hostname", "logfile", "pidfile", "detach", "gossip", "mingle", "optimization", "umask", "quiet"})
_POOLS = {"processes": "prefork", "prefork": "prefork", "solo": "solo", "threads": "threads", "gevent": "gevent"}
_LEVELS = {
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "WARNING": "WARNING",
    "ERROR": "ERROR",
    "CRITICAL": "ERROR",
    "FATAL": "ERROR",
}


@dataclass(frozen=True, slots=True)
class CeleryCommand:
    """``/srv/bin/celery -A shop worker -c 4``: the program, its verb, and the options around it."""

    program: str
    verb: str
    options: tuple[str, ...]


def celery_command(words: Sequence[str]) -> CeleryCommand | None:
    """The words of a command line as Celery's, or None for a different program."""
    program, rest = words[0], list(words[1:])
    if re.search(r"(^|/)python[0-9.]*$", program) and rest[:2] == ["-m", "celery"]:
        rest = rest[2:]
    elif re.search(r"(^|/)celery$", program) is None:
        return None
    verbs = [word for word in ("worker", "beat", "flower", "events") if word in rest]
    if not verbs:
        return None
    position = rest.index(verbs[0])
    return CeleryCommand(program, verbs[0], (*rest[:position], *rest[position + 1 :]))


@dataclass(slots=True)
class CeleryWorker:
    """The values of the options, by name."""

    where: str
    said: dict[str, str] = field(default_factory=dict)

    def fields(self, draft: Draft) -> dict[str, object]:
        """The fields of a group; what concerns the whole fleet goes to the draft."""
        if folder := self.said.get("workdir"):
            draft.workdir(folder)
        if broker := self.said.get("broker"):
            draft.broker(broker)
        if "beat" in self.said:
            self._beat(draft)
        found: dict[str, object] = {"app": self.said.get("app"), "worker": "celery", "pool": self._pool()}
        found["queues"] = [queue for queue in self.said.get("queues", "").split(",") if queue] or None
        found["task"] = self._task()
        found["logging"] = {"level": level} if (level := _LEVELS.get(self.said.get("level", "").upper())) else None
        return {name: value for name, value in found.items() if value is not None}

    def _beat(self, draft: Draft) -> None:
        schedule = ["--schedule", self.said["schedule"]] if "schedule" in self.said else []
        app = ["-A", self.said["app"]] if "app" in self.said else []
        command = ["celery", *app, "beat", *schedule]
        draft.add("beat", {"command": command, "replicas": 1, "rollout": {"strategy": "recreate"}})

    def _pool(self) -> object:
        kind = self.said.get("pool", "prefork")
        pool: dict[str, object] = {"type": _POOLS.get(kind, kind)}
        if kind not in {*_POOLS, "eventlet"}:
            pool = {"type": "custom", "class": kind}
        if (slots := _number(self.said.get("concurrency"))) and pool["type"] != "solo":
            pool["concurrency"] = slots
        if pool["type"] == "prefork":
            pool |= {"maxTasksPerChild": tasks} if (tasks := _number(self.said.get("max_tasks"))) else {}
            pool |= (
                {"maxMemoryPerChild": f"{size}Ki"}
                if (size := _number(self.said.get("max_memory"), most=10**12))
                else {}
            )
        return pool["type"] if list(pool) == ["type"] else pool

    def _task(self) -> dict[str, object] | None:
        task: dict[str, object] = {}
        threads = self.said.get("pool") == "threads"
        for name, field_name in (("time_limit", "timeLimit"), ("soft_time_limit", "softTimeLimit")):
            seconds = re.fullmatch(r"[0-9]+(\.[0-9]+)?", self.said.get(name, ""))
            if seconds and float(seconds[0]) > 0 and not (threads and name == "soft_time_limit"):
                task[field_name] = span(float(seconds[0]))
        slots, times = _number(self.said.get("concurrency")), _number(self.said.get("prefetch"))
        if slots and times:
            task["prefetch"] = slots * times
        return task or None


def _number(text: str | None, most: int = 100_000) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,12}", text) and 0 < int(text) <= most else None


def read_worker(options: Sequence[str], notes: list[str], *, where: str) -> CeleryWorker:
    """The options of one worker; what has no counterpart is noted."""
    worker = CeleryWorker(where)
    words = list(options)
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:].removeprefix("="))
        if name in _FLAGS:
            worker.said[_FLAGS[name]] = "yes"
        elif name in _VALUES:
            worker.said[_VALUES[name]] = value or (words.pop(0) if words else "")
        else:
            notes.append(f"{where}: {word}: unknown option, left out")
    notes += [f"{where}: {text}" for text in _remarks(worker)]
    return worker


def _remarks(worker: CeleryWorker) -> list[str]:
    texts = {
        "autoscale": "--autoscale={value}: give the group `autoscale` and the fleet `concurrency` instead",
        "exclude": "-X {value}: name the wanted queues instead",
        "purge": "--purge: fleet never empties a queue",
        "events": "-E: set worker_send_task_events in the app",
        "result_backend": "--result-backend={value}: set it in the app",
        "heartbeat": "the heartbeat options: Celery's defaults are used",
        "uid": "--uid={value}: run the fleet command as this user",
        "gid": "--gid={value}: run the fleet command as this group",
    }
    handled = {"app", "concurrency", "pool", "queues", "level", "broker", "time_limit", "soft_time_limit", "workdir"}
    handled |= {"max_tasks", "max_memory", "prefetch", "beat", "schedule"} | _SILENT
    found = [texts[name].format(value=value) for name, value in worker.said.items() if name in texts]
    return found + [
        f"{name} {value}: left out" for name, value in worker.said.items() if name not in {*handled, *texts}
    ]
