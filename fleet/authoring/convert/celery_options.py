"""The options of ``celery worker`` as fields of a group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.authoring.yaml_writer import span
from fleet.core.manifest.field_types import IMPORT_PATTERN, QUEUE_PATTERN, TEMPLATE_PATTERN

REFERENCE = re.compile(r"\$\{env:[A-Za-z_][A-Za-z0-9_]*(?::-[0-9]+)?\}")
"""A reference that may stand where the manifest has a number."""

_VALUES = {
    "-A": "app", "--app": "app", "-c": "concurrency", "--concurrency": "concurrency", "-P": "pool", "--pool": "pool",
    "-Q": "queues", "--queues": "queues", "-l": "level", "--loglevel": "level", "--log-level": "level",
    "-b": "broker", "--broker": "broker", "-n": "hostname", "--hostname": "hostname",
    "--time-limit": "time_limit", "--soft-time-limit": "soft_time_limit", "--workdir": "workdir",
    "--max-tasks-per-child": "max_tasks", "--maxtasksperchild": "max_tasks", "--max-memory-per-child": "max_memory",
    "--prefetch-multiplier": "prefetch", "--autoscale": "autoscale", "-O": "optimization",
    "--optimization": "optimization", "-X": "exclude", "--exclude-queues": "exclude", "-f": "logfile",
    "--logfile": "logfile", "--pidfile": "pidfile", "-s": "schedule", "--schedule": "schedule",
    "--schedule-filename": "schedule", "--scheduler": "scheduler", "--uid": "uid", "--gid": "gid", "-S": "statedb",
    "--statedb": "statedb", "--config": "config", "-I": "include", "--include": "include", "--umask": "umask",
    "--executable": "executable", "--heartbeat-interval": "heartbeat", "--result-backend": "result_backend",
    "--loader": "loader",
}  # fmt: skip
_FLAGS = {
    "-E": "events", "--events": "events", "--task-events": "events", "-B": "beat", "--beat": "beat", "-D": "detach",
    "--detach": "detach", "--purge": "purge", "--discard": "purge", "--without-gossip": "gossip",
    "--without-mingle": "mingle", "--without-heartbeat": "without_heartbeat", "-q": "quiet", "--quiet": "quiet",
    "-C": "no_color", "--no-color": "no_color", "--skip-checks": "skip_checks", "--disable-prefetch": "no_prefetch",
}  # fmt: skip
VALUE_OPTIONS = frozenset(_VALUES)
FLAG_OPTIONS = frozenset(_FLAGS)
_VERBS = frozenset(
    {"worker", "beat", "flower", "events", "multi", "inspect", "control", "purge", "call", "shell", "status", "report"}
    | {"list", "graph", "migrate", "amqp", "upgrade", "result", "logtool"}
)
_POOLS = {"processes": "prefork", "prefork": "prefork", "solo": "solo", "threads": "threads", "gevent": "gevent"}
_LEVELS = {
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "WARNING": "WARNING",
    "WARN": "WARNING",
    "ERROR": "ERROR",
    "CRITICAL": "ERROR",
    "FATAL": "ERROR",
}
# Said by Celery's worker under fleet as well, whatever the group says.
_ALWAYS = frozenset({"gossip", "mingle"})
_TEXTS = {
    "autoscale": "--autoscale={value}: the group has {most} slots all the time; with `worker: fleet`, `autoscale`"
    " and spec.concurrency the controller moves them",
    "exclude": "-X {value}: left out; name the wanted queues instead",
    "purge": "--purge: left out; fleet never empties a queue",
    "events": "-E: left out; set worker_send_task_events in the app",
    "result_backend": "--result-backend={value}: left out; set result_backend in the app",
    "heartbeat": "--heartbeat-interval={value}: left out; Celery's default is used",
    "without_heartbeat": "--without-heartbeat: left out; the worker sends heartbeats",
    "hostname": "-n {value}: left out; fleet names workers GROUP.INDEX@host",
    "logfile": "-f {value}: left out; read the log with `fleet logs`",
    "pidfile": "--pidfile={value}: left out; `fleet status` knows the process",
    "detach": "-D: left out; fleet's supervisord keeps the process",
    "include": "-I {value}: left out; set include in the app",
    "statedb": "-S {value}: left out; revoked tasks are forgotten at a restart",
    "config": "--config={value}: left out; set env CELERY_CONFIG_MODULE or call config_from_object in the app",
    "loader": "--loader={value}: left out; set env CELERY_LOADER",
    "umask": "--umask={value}: left out; the worker keeps the umask of fleet",
    "executable": "--executable={value}: left out; the interpreter is release.python",
    "optimization": "-O {value}: left out; workers run with -O fair",
    "quiet": "-q: left out",
    "no_color": "-C: left out; a worker that writes to a file has no colours",
    "skip_checks": "--skip-checks: left out",
    "no_prefetch": "--disable-prefetch: left out; task.prefetch is a number of messages",
    "prefetch": "--prefetch-multiplier={value}: left out; set worker_prefetch_multiplier in the app, or give -c",
}
_CARRIED = frozenset(
    {"app", "concurrency", "pool", "queues", "level", "broker", "time_limit", "soft_time_limit", "workdir"}
    | {"max_tasks", "max_memory", "uid", "gid", "hostname"}
)


@dataclass(frozen=True, slots=True)
class CeleryCommand:
    """``/srv/bin/celery -A shop worker -c 4``: the words that start Celery, its verb, and the options around it."""

    launcher: tuple[str, ...]
    verb: str
    options: tuple[str, ...]

    @property
    def package(self) -> str:
        """The first part of the app's name."""
        return package_of(self.options)

    @property
    def python(self) -> str:
        """The interpreter, where the words name one or lie in a virtual environment; else empty."""
        program = self.launcher[0]
        if len(self.launcher) > 1:
            return program if "/" in program else ""
        folder = program.rpartition("/")[0]
        return "" if folder in {"", "/bin", "/usr/bin", "/usr/local/bin"} else f"{folder}/python"


def package_of(options: Sequence[str]) -> str:
    """The first part of the app's name: ``-A shop.celery:app`` -> ``shop``."""
    app = read_worker(options).said.get("app", "")
    return re.split("[.:]", app)[0]


def celery_command(words: Sequence[str]) -> CeleryCommand | None:
    """The words of a command line as Celery's, or None for a different program."""
    if not words:
        return None
    rest = list(words[1:])
    launcher: tuple[str, ...]
    if re.search(r"(^|/)python[0-9.]*$", words[0]) and rest[:2] == ["-m", "celery"]:
        launcher, rest = (words[0], "-m", "celery"), rest[2:]
    elif re.search(r"(^|/)celery$", words[0]):
        launcher = (words[0],)
    else:
        return None
    position = _verb_position(rest)
    if position is None:
        return None
    return CeleryCommand(launcher, rest[position], (*rest[:position], *rest[position + 1 :]))


def celery_worker(words: Sequence[str]) -> bool:
    """Whether a Celery worker is run by these words, by themselves or behind something else."""
    commands = (celery_command(words[position:]) for position in range(len(words)))
    return any(command is not None and command.verb == "worker" for command in commands)


def _verb_position(words: Sequence[str]) -> int | None:
    """Where the verb stands: the first word that is neither an option nor an option's value."""
    position = 0
    while position < len(words):
        word = words[position]
        if not word.startswith("-"):
            return position if word in _VERBS else None
        position += 2 if word in VALUE_OPTIONS else 1
    return None


@dataclass(slots=True)
class CeleryWorker:
    """The values of the options, by name; and what has no counterpart, as texts."""

    said: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def unable(self) -> str:
        """Why these options cannot be fields of a group, or nothing."""
        wrong = {
            "app": re.fullmatch(IMPORT_PATTERN[1:-1], self.said.get("app", "")) is None,
            "concurrency": "concurrency" in self.said and _number_or_reference(self.said["concurrency"]) is None,
            "queues": not all(re.fullmatch(QUEUE_PATTERN[1:-1], queue) for queue in self.queues()),
            "level": "level" in self.said and self.said["level"].upper() not in _LEVELS,
        }
        names = [name for name in wrong if wrong[name]]
        if names == ["app"] and not self.said.get("app"):
            return "no app is named (-A)"
        return ", ".join(f"{name} {self.said.get(name, '')}" for name in names)

    def queues(self) -> list[str]:
        return [queue for queue in self.said.get("queues", "").split(",") if queue]

    def fields(self, *, replicas: object = 1) -> dict[str, object]:
        """The fields of the group. replicas: how many it has, as far as that is known."""
        found: dict[str, object] = {"app": self.said.get("app"), "worker": "celery", "pool": self._pool()}
        found["queues"] = self.queues() or None
        found["task"] = self._task()
        found["name"] = self._name(replicas)
        found["logging"] = {"level": level} if (level := _LEVELS.get(self.said.get("level", "").upper())) else None
        return {name: value for name, value in found.items() if value is not None}

    def beat(self) -> list[str]:
        """The words after `celery` that run the schedule of ``-B`` alone, or none."""
        if "beat" not in self.said:
            return []
        app = ["-A", self.said["app"]] if "app" in self.said else []
        named = {"schedule": "--schedule", "scheduler": "--scheduler", "level": "--loglevel"}
        options = [word for key, flag in named.items() if key in self.said for word in (flag, self.said[key])]
        return [*app, "beat", *options]

    def _name(self, replicas: object) -> str | None:
        """As ``name`` says it; one that several replicas would share, or that holds more of Celery's own, is noted."""
        said = self.said.get("hostname")
        if said is None:
            return None
        name = re.sub(r"\$\{?(env:)?FLEET_INDEX\}?", "{index}", said).replace("%h", "{host}").replace("%%", "%")
        is_known = re.fullmatch(TEMPLATE_PATTERN[1:-1], name) and "/" not in name and not re.search("%[a-zA-Z]", name)
        if is_known and (replicas == 1 or "{index}" in name):
            return name if "@" in name else f"celery@{name}"
        self.notes.append(_TEXTS["hostname"].format(value=said))
        return None

    def _min_slots(self, pool: object) -> int | None:
        """The lower bound of --autoscale, where the pool can shrink."""
        least = _number(self.said.get("autoscale", "").partition(",")[2])
        return least if pool in {None, "prefork", "gevent", "eventlet"} else None

    def _slots(self) -> int | None:
        most = self.said.get("autoscale", "").partition(",")[0]
        return _number(most) or _number(self.said.get("concurrency"))

    def _pool(self) -> object:
        """A word or a map; without ``-P`` no type, so that the app's own worker_pool applies."""
        said = self.said.get("pool")
        pool: dict[str, object] = {}
        if said is not None:
            known = said in _POOLS or said == "eventlet"
            pool = {"type": _POOLS.get(said, said)} if known else {"type": "custom", "class": said}
        if (slots := self._slots() or _number_or_reference(self.said.get("concurrency"))) and pool.get(
            "type"
        ) != "solo":
            pool["concurrency"] = slots
            if least := self._min_slots(pool.get("type")):
                pool["minConcurrency"] = least
        forks = pool.get("type", "prefork") == "prefork"
        for name, key, unit in (("max_tasks", "maxTasksPerChild", ""), ("max_memory", "maxMemoryPerChild", "Ki")):
            number = _number(self.said.get(name), most=10**12)
            if number and forks:
                pool[key] = f"{number}{unit}" if unit else number
            elif name in self.said:
                self.notes.append(f"{name} {self.said[name]}: left out; only prefork workers replace children")
        return pool["type"] if list(pool) == ["type"] else pool or None

    def _task(self) -> dict[str, object] | None:
        task: dict[str, object] = {}
        threads = self.said.get("pool") == "threads"
        for name, field_name in (("time_limit", "timeLimit"), ("soft_time_limit", "softTimeLimit")):
            seconds = re.fullmatch(r"[0-9]+(\.[0-9]+)?", self.said.get(name, ""))
            if seconds and float(seconds[0]) > 0 and not (threads and name == "soft_time_limit"):
                task[field_name] = span(float(seconds[0]))
            elif name in self.said:
                why = "; a pool of threads has none" if threads and name == "soft_time_limit" else "; not a time limit"
                self.notes.append(f"--{name.replace('_', '-')}={self.said[name]}: left out{why}")
        slots, times = self._slots(), _number(self.said.get("prefetch"))
        if slots and times:
            task["prefetch"] = slots * times
        return task or None


def _number(text: str | None, most: int = 100_000) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,12}", text) and 0 < int(text) <= most else None


def _number_or_reference(text: str | None) -> int | str | None:
    """A number, or a reference to the environment that stands for one."""
    return text if text and REFERENCE.fullmatch(text) else _number(text)


def read_worker(options: Sequence[str]) -> CeleryWorker:
    """The options of one worker; what has no counterpart is in its notes."""
    worker = CeleryWorker()
    words = list(options)
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:].removeprefix("="))
        if name in _FLAGS:
            worker.said[_FLAGS[name]] = "yes"
            if value and not word.startswith("--"):  # -BE: flags written together
                words.insert(0, f"-{value}")
        elif name in _VALUES:
            worker.said[_VALUES[name]] = value or (words.pop(0) if words else "")
        else:
            worker.notes.append(f"{word}: unknown option, left out")
    worker.notes += _remarks(worker.said)
    return worker


def _remarks(said: dict[str, str]) -> list[str]:
    handled = set(_CARRIED | _ALWAYS | {"beat"})
    if said.get("optimization") == "fair":
        handled.add("optimization")
    if "beat" in said:
        handled |= {"schedule", "scheduler"}
    most, _, least = said.get("autoscale", "").partition(",")
    can_shrink = _POOLS.get(said.get("pool", "prefork"), said.get("pool")) in {"prefork", "gevent", "eventlet"}
    if _number(most) and _number(least) and can_shrink:
        handled.add("autoscale")
    if _number(said.get("concurrency")) or _number(said.get("autoscale", "").partition(",")[0]):
        handled.add("prefetch")
    texts = {name: _TEXTS.get(name, "{name} {value}: left out") for name in said if name not in handled}
    return [text.format(name=name, value=said[name], most=most) for name, text in texts.items()]
