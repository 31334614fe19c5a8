"""systemd units of services."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fleet.authoring.convert import celeryd_file
from fleet.authoring.convert.celery_multi import expanded
from fleet.authoring.convert.draft import STOP_SIGNALS, After, Draft, OfCommand, Program
from fleet.authoring.convert.limits import memory, open_files, processors
from fleet.authoring.convert.programs import add_program
from fleet.authoring.yaml_writer import span
from fleet.errors import UsageError

KIND = "systemd"
EXPECTED = "give a unit file NAME.service with [Service] and ExecStart="
_UNITS = {"": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1, "ms": 0.001, "m": 60, "min": 60, "minutes": 60, "h": 3600}
_UNITS |= {"hr": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400}
_READ = frozenset(
    {"ExecStart", "Environment", "EnvironmentFile", "User", "Group", "WorkingDirectory", "TimeoutStopSec", "RestartSec"}
    | {"Type", "Restart", "KillSignal", "UMask", "PassEnvironment", "TimeoutSec", "KillMode", "StartLimitBurst"}
    | {"StartLimitIntervalSec", "StartLimitInterval", "LimitNOFILE", "MemoryMax", "CPUQuota", "Nice"}
    | {"NoNewPrivileges", "MemoryKSM"}
)
_UNIT_READ = frozenset(
    {"StartLimitBurst", "StartLimitIntervalSec", "StartLimitInterval", "After", "Requires", "Wants", "BindsTo"}
)
_LEFT_OUT = {
    "ExecStartPre": "run it before fleet apply, or make it a part of the program",
    "ExecStartPost": "fleet runs nothing after a start",
    "ExecStop": "fleet stops with TERM",
    "ExecReload": "fleet replaces replicas",
    "PIDFile": "`fleet status` knows the process",
    "RuntimeDirectory": "make the folder yourself",
    "LimitNPROC": "replicas have the limits of fleet",
    "StandardOutput": "read the log with `fleet logs`",
    "StandardError": "read the log with `fleet logs`",
    "SyslogIdentifier": "read the log with `fleet logs`",
    "WatchdogSec": "fleet sees stuck workers by their heartbeat",
}
_YES = frozenset({"yes", "true", "on", "1"})
_NODE_TEMPLATE = re.compile(r"^(?P<name>[^@]+)@(?P<instance>[^.]*)\.service$")


def is_kind(text: str) -> bool:
    return re.search(r"(?m)^\[Service\]", text) is not None and re.search(r"(?m)^\s*ExecStart\s*=", text) is not None


@dataclass(slots=True)
class _Unit:
    """Sections of a unit: (section, key) -> values with their lines, in order; an empty value resets."""

    values: dict[tuple[str, str], list[tuple[str, int]]] = field(default_factory=dict)

    def all(self, key: str, section: str = "Service") -> list[tuple[str, int]]:
        return self.values.get((section, key), [])

    def last(self, key: str, section: str = "Service") -> str:
        values = self.all(key, section)
        return values[-1][0] if values else ""

    def line(self, key: str, section: str = "Service") -> int:
        values = self.all(key, section)
        return values[-1][1] if values else 0


def read(text: str, draft: Draft) -> None:
    """Add the group of the service."""
    unit = _parsed(text, draft)
    if not unit.all("ExecStart"):
        raise UsageError(f"{draft.source}: there is no ExecStart= under [Service]", hint=EXPECTED)
    name, instance = _names(draft.source)
    _specifiers(unit, name, instance)
    for section, key in sorted(unit.values):
        _note_field(draft, unit, section, key)
    kind = unit.last("Type")
    program = _program(draft, unit, name)
    known = _file_variables(draft, unit, program)
    command = re.sub(r"^[-@:+!]+", "", unit.all("ExecStart")[-1][0])
    if kind == "forking" and re.search(r"\bmulti\s+start\b", command):
        _multi(draft, program, command, known)
        return
    if kind in {"forking", "notify", "dbus"}:
        text_of_note = f"Type={kind}: left out; the program must stay in the foreground"
        draft.note(f"{name}: {text_of_note}", unit.line("Type"))
    if kind == "oneshot":
        _make_job(draft, unit, program)
    _take_command(program, command, {**known, **program.env})
    if _NODE_TEMPLATE.match(draft.source.rpartition("/")[2]) and not instance:
        draft.note(f"{name}: a template: one replica; give it as many as there are instances", program.line)
    add_program(draft, program)


def _make_job(draft: Draft, unit: _Unit, program: Program) -> None:
    """Type=oneshot: it runs to its end, once for each version."""
    program.fields["job"] = True
    text = "Type=oneshot: a job: it runs once for each version; what a timer starts belongs to the timer"
    draft.note(f"{program.name}: {text}", unit.line("Type"))
    for command, line in unit.all("ExecStart")[:-1]:
        draft.note(f"{program.name}: ExecStart={command}: left out; a job has one command", line)


def _parsed(text: str, draft: Draft) -> _Unit:
    unit, section = _Unit(), ""
    lines = text.splitlines()
    position = 0
    while position < len(lines):
        number, line = position + 1, lines[position].strip()
        position += 1
        while line.endswith("\\") and position < len(lines):
            following = lines[position].strip()
            position += 1
            if not following.startswith(("#", ";")):
                line = f"{line[:-1].rstrip()} {following}"
        if not line or line.startswith(("#", ";")):
            continue
        if match := re.fullmatch(r"\[([^\]]+)\]", line):
            section = match[1]
        elif "=" in line and section:
            key, _, value = (part.strip() for part in line.partition("="))
            values = unit.values.setdefault((section, key), [])
            if value:
                values.append((value, number))
            else:
                values.clear()
        else:
            raise UsageError(f"{draft.source}:{number}: not a line of a unit: {line[:60]}", hint=EXPECTED)
    return unit


def _names(source: str) -> tuple[str, str]:
    """The name of the unit, and the instance of a template (``worker@mail.service``)."""
    file = source.rpartition("/")[2]
    match = _NODE_TEMPLATE.match(file)
    if match:
        return (f"{match['name']}-{match['instance']}" if match["instance"] else match["name"]), match["instance"]
    return file.removesuffix(".service"), ""


def _specifiers(unit: _Unit, name: str, instance: str) -> None:
    """``%i``, ``%n``, ``%p``, ``%h``, ``%%``; the instance of a template is the number of the replica."""
    words = {"i": instance or "${FLEET_INDEX}", "I": instance or "${FLEET_INDEX}", "n": f"{name}.service", "p": name}
    words |= {"N": name, "h": "${env:HOME}", "u": "${env:USER:-root}", "H": "${env:HOSTNAME:-localhost}", "%": "%"}
    words |= {"t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log"}
    for values in unit.values.values():
        values[:] = [
            (re.sub(r"%(.)", lambda match: words.get(match[1], match[0]), value), line) for value, line in values
        ]


def _note_field(draft: Draft, unit: _Unit, section: str, key: str) -> None:
    if section == "Service" and key in _READ:
        return
    if section == "Unit" and key in _UNIT_READ:
        return
    why = _LEFT_OUT.get(key) or {
        "Install": "`fleet service` starts the fleet with the machine",
        "Unit": "start the fleet after it, with `fleet service`",
    }.get(section, "it has no counterpart")
    if section == "Unit" and key in {"Description", "Documentation"}:
        why = "a manifest has comments"
    for value, line in unit.all(key, section):
        draft.note(f"{key}={value}: left out; {why}", line)


def _program(draft: Draft, unit: _Unit, name: str) -> Program:
    program = Program(name, unit.line("ExecStart"), user=unit.last("User"), group=unit.last("Group"))
    program.workdir = re.sub("^[-~]", "", unit.last("WorkingDirectory"))
    program.umask = unit.last("UMask")
    for value, line in unit.all("Environment"):
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise UsageError(f"{draft.source}:{line}: {error}", hint="check the quotes") from error
        program.env |= {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    for value, _ in unit.all("PassEnvironment"):
        program.inherit |= dict.fromkeys(value.split(), "optional")
    program.fields = _fields(draft, unit, name)
    program.of_command = list(_of_command(draft, unit, name))
    program.after = list(_after(unit))
    return program


def _after(unit: _Unit) -> Iterator[After]:
    """Units that are to run before; those that are no group of this manifest are noted."""
    seen: set[str] = set()
    for key in ("After", "Requires", "Wants", "BindsTo"):
        for value, line in unit.all(key, "Unit"):
            for other in value.split():
                text = f"{key}={other}: left out; start the fleet after it, with `fleet service`"
                if other not in seen:
                    yield After(_names(other)[0], text, line)
                seen.add(other)


def _fields(draft: Draft, unit: _Unit, name: str) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key in ("TimeoutSec", "TimeoutStopSec"):
        if unit.all(key) and (seconds := _seconds(draft, unit, name, key)):
            fields["drain"] = {"timeout": span(seconds)}
    restart: dict[str, object] = {}
    if unit.all("RestartSec") and (seconds := _seconds(draft, unit, name, "RestartSec")):
        restart["backoff"] = {"initial": span(seconds)} | ({"max": span(seconds)} if seconds > 60 else {})
    for section in ("Service", "Unit"):
        burst = unit.last("StartLimitBurst", section)
        if burst.isdigit() and int(burst):
            restart["maxCrashes"] = int(burst)
        for key in ("StartLimitIntervalSec", "StartLimitInterval"):
            if unit.all(key, section) and (seconds := _seconds(draft, unit, name, key, section)):
                restart["window"] = span(seconds)
    if restart:
        fields["restart"] = restart
    if nice := unit.last("Nice"):
        if re.fullmatch("-?1?[0-9]|-20", nice):
            fields["nice"] = int(nice)
        else:
            draft.note(f"{name}: Nice={nice}: left out; it is from -20 to 19", unit.line("Nice"))
    if unit.last("NoNewPrivileges").lower() in _YES:
        fields["noNewPrivileges"] = True
    if unit.last("MemoryKSM").lower() in _YES:
        fields["mergeMemory"] = True
    if limits := _limits(draft, unit, name):
        fields["limits"] = limits
    return fields


_LIMITS: dict[str, tuple[str, Callable[[str], object]]] = {
    "LimitNOFILE": ("openFiles", open_files),
    "MemoryMax": ("memory", memory),
    "CPUQuota": ("cpus", processors),
}


def _limits(draft: Draft, unit: _Unit, name: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, (field_name, read_as) in _LIMITS.items():
        if text := unit.last(key):
            value = read_as(text)
            if value is None:
                draft.note(f"{name}: {key}={text}: left out; write limits.{field_name} by hand", unit.line(key))
            else:
                found[field_name] = value
    return found


_POLICIES = {"no": "never", "on-failure": "onFailure"}


def _of_command(draft: Draft, unit: _Unit, name: str) -> Iterator[OfCommand]:
    is_job = unit.last("Type") == "oneshot"
    again = unit.last("Restart") or "no"
    line = unit.line("Restart") or unit.line("ExecStart")
    if again in _POLICIES:
        text = f"Restart={again}: left out; fleet starts a worker again whenever it ends"
        if not (is_job and again == "no"):
            yield OfCommand("restart", {"policy": _POLICIES[again]}, text, line)
    elif again != "always" or is_job:
        draft.note(f"{name}: Restart={again}: left out; see restart.policy", line)
    signal = unit.last("KillSignal").upper().removeprefix("SIG")
    if signal in STOP_SIGNALS - {"TERM"}:
        text = f"KillSignal={signal}: left out; fleet stops a worker with TERM"
        yield OfCommand("stop", {"signal": signal}, text, unit.line("KillSignal"))
    elif signal not in {"", "TERM"}:
        draft.note(f"{name}: KillSignal={signal}: left out; see stop.signal", unit.line("KillSignal"))
    mode = unit.last("KillMode")
    if mode == "control-group":
        text = f"KillMode={mode}: left out; a worker ends its children itself"
        yield OfCommand("stop", {"group": True}, text, unit.line("KillMode"))
    elif mode not in {"", "mixed"}:
        text = f"KillMode={mode}: left out; fleet sends TERM to the program and kills the whole group after the grace"
        draft.note(f"{name}: {text}", unit.line("KillMode"))


def _seconds(draft: Draft, unit: _Unit, name: str, key: str, section: str = "Service") -> float:
    """A time span of systemd (``5min 20s``, ``90``) in seconds; 0 for none."""
    text = unit.last(key, section)
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", text)
    if text in {"infinity", "0"} or not parts or any(unit_name not in _UNITS for _, unit_name in parts):
        draft.note(f"{name}: {key}={text}: left out; a time in fleet has an end", unit.line(key, section))
        return 0.0
    return sum(float(number) * _UNITS[unit_name] for number, unit_name in parts)


def _file_variables(draft: Draft, unit: _Unit, program: Program) -> dict[str, str]:
    """The variables of EnvironmentFile=, where the file can be read; else it stays a file for the group."""
    known: dict[str, str] = {}
    for value, _ in unit.all("EnvironmentFile"):
        path = value.removeprefix("-")
        text = draft.files.read(path)
        if text is not None:
            known |= variables_of_file(text)
            draft.note(f"{program.name}: variables in ExecStart= have the values that {path} gives now", program.line)
        program.env_files.append(value)
    return known


def variables_of_file(text: str) -> dict[str, str]:
    """Lines ``NAME=value`` with quotes and lines that end in a backslash; comments left out."""
    found: dict[str, str] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if match := re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*", line):
            value = match[2]
            quoted = re.fullmatch(r"([\"'])(.*)\1", value, re.DOTALL)
            found[match[1]] = quoted[2] if quoted else value
    return found


def _multi(draft: Draft, program: Program, command: str, known: dict[str, str]) -> None:
    """``ExecStart=… celery multi start $CELERYD_NODES …`` with the variables of its file."""
    program.env_files = [path.removeprefix("-") for path in program.env_files]
    missing = [path for path in program.env_files if draft.files.read(path) is None]
    if missing:
        text = f"ExecStart={command}: left out; {', '.join(missing)} was not read: give it with --from celeryd FILE"
        draft.note(f"{program.name}: {text}", program.line)
        return
    here = draft.source
    for path in program.env_files:
        draft.included(path)
    lines = [f"{key}={shlex.quote(value)}" for key, value in {**program.env, **known}.items()]
    account = {"CELERYD_USER": program.user, "CELERYD_GROUP": program.group, "CELERYD_CHDIR": program.workdir}
    lines += [f"{key}={shlex.quote(value)}" for key, value in account.items() if value and key not in known]
    draft.source = program.env_files[0] if program.env_files else here
    celeryd_file.read("\n".join(lines), draft)
    draft.source = here


def _take_command(program: Program, command: str, known: dict[str, str]) -> None:
    """systemd replaces ``${X}`` in a word and splits ``$X``; what only the unit's surroundings know needs a shell."""
    text = expanded(command, {key: value for key, value in known.items() if value})
    left = re.sub(r"\$\{?FLEET_INDEX\}?", "", re.sub(r"\$\{env:[^}]*\}", "", text)).replace("$$", "")
    words = shlex.split(text)
    if len(words) == 3 and words[1] == "-c":
        program.words = [words[0], words[1], words[2].replace("$$", "$")]
    elif "$" in left or "FLEET_INDEX" in text:
        program.shell = f"exec {' '.join(_for_shell(word) for word in words)}"
    else:
        program.words = [word.replace("$$", "$") for word in words]


def _for_shell(word: str) -> str:
    """A word in double quotes in which only variables are replaced; ``$X`` alone may become several words."""
    if re.fullmatch(r"\$[A-Za-z_]\w*", word):
        return word
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word):
        return word
    return '"' + re.sub(r'(["`\\])', r"\\\1", word) + '"'
