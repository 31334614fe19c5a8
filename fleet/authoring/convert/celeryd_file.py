"""/etc/default/celeryd: the variables that Celery's init scripts and units read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.authoring.convert.celery_multi import add_nodes, expanded
from fleet.authoring.convert.celery_options import package_of
from fleet.authoring.convert.draft import Draft, DraftGroup, Program
from fleet.authoring.convert.shell import from_environment
from fleet.errors import UsageError

KIND = "celeryd"
EXPECTED = "give a file with CELERYD_NODES, CELERYD_OPTS or CELERY_APP"
_ASSIGNMENT = re.compile(r"\s*(?:export\s+|declare\s+-x\s+)?([A-Za-z_]\w*)=")
_OWN = re.compile(
    r"CELERYD_\w+|CELERYBEAT_\w+|CELERY_(APP|BIN|CREATE_DIRS|RUN_DIR|LOG_DIR|CREATE_LOGDIR|CREATE_RUNDIR)"
)
_READ = frozenset(
    {"CELERYD_NODES", "CELERYD_OPTS", "CELERY_APP", "CELERY_BIN", "CELERYD_CHDIR", "CELERYD_USER", "CELERYD_GROUP"}
    | {"CELERYD_LOG_LEVEL", "CELERYD_MULTI", "CELERYBEAT_CHDIR", "CELERYBEAT_OPTS", "CELERYBEAT_LOG_LEVEL"}
    | {"CELERYBEAT_USER", "CELERYBEAT_GROUP"}
)
_LEFT_OUT = {
    "CELERYD_LOG_FILE": "read the log with `fleet logs`",
    "CELERYD_PID_FILE": "`fleet status` knows the processes",
    "CELERYBEAT_LOG_FILE": "read the log with `fleet logs`",
    "CELERYBEAT_PID_FILE": "`fleet status` knows the process",
    "CELERY_CREATE_DIRS": "fleet makes its own folders",
    "CELERYD_STATE_DIR": "fleet has its own folder",
}


def is_kind(text: str) -> bool:
    return re.search(r"(?m)^\s*(export\s+)?(CELERYD_(NODES|OPTS|CHDIR|MULTI)|CELERYBEAT_\w+)=", text) is not None


@dataclass(slots=True)
class _Variables:
    """Name -> value and the line where it was set."""

    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def read(text: str, draft: Draft) -> None:
    """Add the nodes, and beat where there are variables for it."""
    found = _variables(text, draft)
    known = {name: expanded(value, found.values) for name, value in found.values.items()}
    for name in known:
        _note_variable(draft, name, known[name], found.lines[name])
    if not {"CELERYD_NODES", "CELERYD_OPTS", "CELERY_APP", "CELERYD_MULTI"} & set(known):
        raise UsageError(f"{draft.source}: none of Celery's variables is in it", hint=EXPECTED)
    line = next((found.lines[name] for name in ("CELERYD_NODES", "CELERYD_OPTS", "CELERY_APP") if name in known), 1)
    env = {name: from_environment(value) for name, value in known.items() if _OWN.fullmatch(name) is None}
    program = Program("", line, env=env, user=known.get("CELERYD_USER", ""), group=known.get("CELERYD_GROUP", ""))
    program.workdir = known.get("CELERYD_CHDIR", "")
    words = [*_launcher(known), "multi", *known.get("CELERYD_NODES", "celery").split()]
    words += ["-A", known["CELERY_APP"]] if known.get("CELERY_APP") else []
    words += ["-l", known["CELERYD_LOG_LEVEL"]] if known.get("CELERYD_LOG_LEVEL") else []
    add_nodes(draft, words + shlex.split(known.get("CELERYD_OPTS", "")), program)
    if any(name.startswith("CELERYBEAT_") for name in known):
        _add_beat(draft, known, program)


def _launcher(known: Mapping[str, str]) -> list[str]:
    """CELERY_BIN, or the Celery that CELERYD_MULTI names (`/srv/venv/bin/celery multi`)."""
    if known.get("CELERY_BIN"):
        return shlex.split(known["CELERY_BIN"])
    words = shlex.split(known.get("CELERYD_MULTI", ""))
    words = words[: words.index("multi")] if "multi" in words else []
    return words or ["celery"]


def _add_beat(draft: Draft, known: Mapping[str, str], base: Program) -> None:
    app = ["-A", known["CELERY_APP"]] if known.get("CELERY_APP") else []
    level = ["-l", known["CELERYBEAT_LOG_LEVEL"]] if known.get("CELERYBEAT_LOG_LEVEL") else []
    command = [*_launcher(known), *app, "beat", *level, *shlex.split(known.get("CELERYBEAT_OPTS", ""))]
    fields: dict[str, object] = {"command": command, "rollout": {"strategy": "recreate"}}
    fields |= {"env": dict(base.env)} if base.env else {}
    account = {"user": known.get("CELERYBEAT_USER", base.user), "group": known.get("CELERYBEAT_GROUP", base.group)}
    fields |= {name: value for name, value in account.items() if value}
    workdir = known.get("CELERYBEAT_CHDIR", base.workdir)
    draft.add(DraftGroup(fields, "beat", line=base.line, workdir=workdir, is_beat=True, package=package_of(app)))


def _note_variable(draft: Draft, name: str, value: str, line: int) -> None:
    if name in _LEFT_OUT:
        draft.note(f"{name}={value}: left out; {_LEFT_OUT[name]}", line)
    elif _OWN.fullmatch(name) and name not in _READ:
        draft.note(f"{name}={value}: unknown to fleet, left out", line)


def _variables(text: str, draft: Draft) -> _Variables:
    """What the shell would know after the file; lines that are no assignment are noted."""
    found = _Variables()
    for number, line in _statements(text):
        words = _words(line, draft, number)
        if words[:1] in (["."], ["source"]) and len(words) == 2:
            _source(found, words[1], draft, number)
            continue
        if words[:1] == ["export"]:
            words = words[1:]
        if not words or not all(re.match(r"[A-Za-z_]\w*(=|$)", word) for word in words):
            draft.note(f"{line}: not an assignment; left out", number)
            continue
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                found.values[name] = _value(name, value, found.values)
                found.lines[name] = number
    return found


def _value(name: str, value: str, known: Mapping[str, str]) -> str:
    """``X=${X="d"}`` and ``X=${X:-d}`` are a default for what is around."""
    if match := re.fullmatch(r"\$\{(\w+):?[-=]\"?(.*?)\"?\}", value, re.DOTALL):
        return known.get(match[1], f"${{env:{match[1]}:-{match[2]}}}" if match[1] == name else match[2])
    return value


def _words(line: str, draft: Draft, number: int) -> list[str]:
    try:
        return shlex.split(re.sub(r'\$\{(\w+):?[-=]"([^"]*)"\}', r"'${\1:-\2}'", line), comments=True)
    except ValueError as error:
        raise UsageError(f"{draft.source}:{number}: {error}", hint="check the quotes") from error


def _source(found: _Variables, path: str, draft: Draft, line: int) -> None:
    text = draft.included(path)
    if text is None:
        draft.note(f"source {path}: the file was not read; write the variables of it that workers need under env", line)
        return
    other = _variables(text, draft)
    found.values |= other.values
    found.lines |= dict.fromkeys(other.values, line)


def _statements(text: str) -> list[tuple[int, str]]:
    """Statements with their line: a quote or a backslash at the end of a line goes on in the next."""
    found: list[tuple[int, str]] = []
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start if pending else number
        pending += line.rstrip()
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
        elif _is_open(pending):
            pending += "\n"
        else:
            found.append((start, pending.strip()))
            pending = ""
    return found + ([(start, pending.strip())] if pending.strip() else [])


def _is_open(text: str) -> bool:
    try:
        shlex.split(re.sub(r'\$\{\w+:?[-=]"[^"]*"\}', "x", text), comments=True)
    except ValueError:
        return True
    return False
