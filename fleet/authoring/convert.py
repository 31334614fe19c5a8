"""Manifests from existing configurations: celery multi, a Procfile, supervisor's INI.

Celery workers stay Celery's (``worker: celery``), with the same options from now on written as fields; anything else
becomes a command. What has no counterpart is named in a note and never dropped in silence.
"""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Literal

from fleet.authoring.celery_options import celery_command, read_worker
from fleet.authoring.yaml_writer import Draft, Imported, draft_text, span
from fleet.errors import UsageError

__all__ = ["Imported", "Kind", "import_from"]

Kind = Literal["celery-multi", "procfile", "supervisor"]
_SHELL = re.compile(r"[|&;<>()`*?\[\]~]|\$(?!\{env:)")


def import_from(kind: str, text: str, *, name: str, source: str = "") -> Imported:
    """The manifest that does the same as ``text``. Raises UsageError when there is nothing to run in it."""
    try:
        read = _READERS[kind]
    except KeyError:
        raise UsageError(f"cannot import from {kind!r}", hint=f"known: {', '.join(sorted(_READERS))}") from None
    draft = Draft()
    try:
        read(text.removeprefix("\ufeff").replace("${env:", "$${env:"), draft)
    except ValueError as error:  # a quote without an end, in any of the formats
        raise UsageError(f"{source or kind}: {error}", hint="check the quotes") from error
    if not draft.groups:
        raise UsageError(f"{source or kind}: nothing to run was found", hint=_EXPECTED[kind])
    return Imported(draft_text(draft, name=name, source=source or kind), tuple(draft.notes))


# celery multi: a command line, or the file of variables that its init scripts read


def _celery_multi(text: str, draft: Draft) -> None:
    variables = _shell_variables(text)
    if "CELERYD_NODES" in variables or "CELERYD_OPTS" in variables:
        words = _words_of_variables(variables, draft)
    else:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    words = words[words.index("multi") + 1 :] if "multi" in words else words
    if words[:1] and words[0] in {"start", "restart", "stopwait", "show", "stop"}:
        words = words[1:]
    for node, options in _nodes(words).items():
        worker = read_worker(options, draft.notes, where=node)
        draft.add_alike(re.sub(r"@.*$", "", node), worker.fields(draft), of=re.sub(r"\d+(@.*)?$", "", node) or node)


def _shell_variables(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if match := re.match(r"\s*(?:export\s+)?([A-Z][A-Z0-9_]*)=(.*)$", line):
            words = shlex.split(match[2], comments=True)
            found[match[1]] = " ".join(words[:1])
    return found


def _words_of_variables(variables: Mapping[str, str], draft: Draft) -> list[str]:
    known = {name: _expanded(value, variables) for name, value in variables.items()}
    words = (known.get("CELERYD_NODES") or "celery").split()
    if app := known.get("CELERY_APP"):
        words += ["-A", app]
    if level := known.get("CELERYD_LOG_LEVEL"):
        words += ["-l", level]
    if folder := known.get("CELERYD_CHDIR"):
        draft.workdir(folder)
    if program := known.get("CELERY_BIN"):
        draft.interpreter_beside(program)
    if user := known.get("CELERYD_USER"):
        draft.note(f"CELERYD_USER={user}: run the fleet command as this user")
    return words + shlex.split(known.get("CELERYD_OPTS", ""))


def _expanded(value: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?([A-Z][A-Z0-9_]*)\}?", lambda match: variables.get(match[1], match[0]), value)


_FLAGS = frozenset({"-E", "-B", "-D", "-q"})  # short options of `celery worker` that take no value


def _nodes(words: list[str]) -> dict[str, list[str]]:
    """Node -> its options; ``-c:1 3`` and ``-c:w1 3`` are for some nodes only."""
    names: list[str] = []
    common: list[str] = []
    special: list[tuple[list[str], list[str]]] = []
    position = 0
    while position < len(words):
        option, position = _option(words, position)
        if not option[0].startswith("-"):
            names += option
        elif match := re.fullmatch(r"(--?[A-Za-z-]+):([^=]+)(=.*)?", option[0]):
            special.append((match[2].split(","), [match[1] + (match[3] or ""), *option[1:]]))
        else:
            common += option
    if len(names) == 1 and names[0].isdigit():
        names = [f"celery{number}" for number in range(1, min(int(names[0]), 1000) + 1)]
    return {name: [*common, *_for_node(special, name, number)] for number, name in enumerate(names, 1)}


def _for_node(special: list[tuple[list[str], list[str]]], name: str, number: int) -> list[str]:
    found: list[str] = []
    for whom, option in special:
        if any(_is_meant(who, name, number) for who in whom):
            found += option
    return found


def _is_meant(who: str, name: str, number: int) -> bool:
    if match := re.fullmatch(r"(\d+)(?:-(\d+))?", who):
        return int(match[1]) <= number <= int(match[2] or match[1])
    return who == name


def _option(words: list[str], position: int) -> tuple[list[str], int]:
    """One word, or an option with its value."""
    word = words[position]
    name, _, value = word.partition("=")
    bare = name.split(":")[0]
    takes_value = word.startswith("-") and not value and bare not in _FLAGS | _LONG_FLAGS
    takes_value = takes_value and (word.startswith("--") or len(bare) == 2)
    if takes_value and position + 1 < len(words) and not words[position + 1].startswith("-"):
        return [word, words[position + 1]], position + 2
    return [word], position + 1


_LONG_FLAGS = frozenset(
    {"--events", "--task-events", "--beat", "--detach", "--purge", "--without-gossip", "--without-mingle"}
    | {"--without-heartbeat", "--quiet", "--verbose"}
)


# Procfile


def _procfile(text: str, draft: Draft) -> None:
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9_-]+):\s*(.+)$", line.strip())
        if match is None or line.lstrip().startswith("#"):
            continue
        if match[1] == "release":
            draft.note(f"release: {match[2]}: runs once per deployment and not all the time; left out")
            continue
        if group := _shell_line(match[1], match[2], draft):
            draft.add(match[1], {**group, "replicas": 1})


# supervisor


def _supervisor(text: str, draft: Draft) -> None:
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(" ;", "\t;"), allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UsageError(
            f"not supervisor's INI: {error.message.splitlines()[0]}", hint=_EXPECTED["supervisor"]
        ) from error
    for section in parser.sections():
        kind, _, name = section.partition(":")
        if kind == "program" and parser.has_option(section, "command"):
            _section(name.strip(), {key: value or "" for key, value in parser.items(section)}, draft)
        elif kind in {"fcgi-program", "eventlistener", "group"}:
            draft.note(f"[{section}]: has no counterpart; left out")


_SILENT = frozenset(
    {"command", "numprocs", "numprocs_start", "process_name", "directory", "environment", "autostart", "autorestart"}
    | {"stopwaitsecs", "stopasgroup", "killasgroup", "startsecs", "startretries", "priority", "exitcodes", "umask"}
    | {"stdout_logfile", "stderr_logfile", "redirect_stderr", "stdout_logfile_maxbytes", "stdout_logfile_backups"}
    | {"stderr_logfile_maxbytes", "stderr_logfile_backups", "stdout_capture_maxbytes", "stopsignal", "serverurl"}
)


def _section(name: str, options: Mapping[str, str], draft: Draft) -> None:
    numprocs = str(_count(options.get("numprocs", "1")))
    values = {key: _unescaped(value, name, numprocs) for key, value in options.items()}
    fields: dict[str, object] = {"replicas": int(numprocs)}
    if (wait := values.get("stopwaitsecs", "")).isdigit():
        fields["drain"] = {"timeout": span(int(wait))}
    if values.get("autostart", "true").lower() in {"false", "0", "no", "off"}:
        fields["paused"] = True
    if folder := values.get("directory"):
        draft.workdir(folder)
    if (signal := values.get("stopsignal", "TERM").upper()) not in {"TERM", "15"}:
        draft.note(f"{name}: stopsignal={signal}: fleet stops with TERM")
    if user := values.get("user"):
        draft.note(f"{name}: user={user}: run the fleet command as this user")
    for key in sorted(set(values) - _SILENT - {"user"}):
        draft.note(f"{name}: {key}={values[key]}: has no counterpart")
    env = _environment(values.get("environment", ""))
    for key in [key for key, value in env.items() if _INDEX in value]:
        draft.note(f"{name}: environment {key}: the number of the process is FLEET_INDEX in the program's environment")
        del env[key]
    words = shlex.split(values["command"])
    draft.add(name, {**_group(name, words, draft), **_allowed_env(name, env, draft), **fields})


def _count(text: str) -> int:
    return min(int(text), 10_000) if text.isdigit() else 1


_INDEX = "\x1aINDEX\x1a"  # stands for the number of a process until it is known where it is used


def _unescaped(value: str, name: str, numprocs: str) -> str:
    """supervisor's own templates: ``%(ENV_X)s`` is the environment, ``%%`` a percent sign."""
    value = re.sub(r"%\(ENV_([A-Za-z_][A-Za-z0-9_]*)\)s", r"${env:\1}", value)
    value = re.sub(r"%\((program_name|group_name)\)s", name.replace("\\", r"\\"), value)
    value = re.sub(r"%\(numprocs\)[0-9]*d", numprocs, value)
    value = re.sub(r"%\(process_num\)[0-9]*d", _INDEX, value)
    value = re.sub(r"%\(host_node_name\)s", "${env:HOSTNAME:-localhost}", value)
    return value.replace("%(here)s", ".").replace("%%", "%")


def _environment(text: str) -> dict[str, str]:
    """``A="x",B='y z'`` as supervisor reads it."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=",")
    lexer.whitespace_split, lexer.commenters = True, ""
    pairs = (word.partition("=") for word in lexer if word.strip(","))
    return {name.strip(): value for name, _, value in pairs if name.strip()}


# any program


def _group(name: str, words: list[str], draft: Draft) -> dict[str, object]:
    """A Celery worker becomes a group with an app, anything else a command."""
    celery = celery_command(words) if words else None
    if celery is not None and celery.verb == "worker":
        draft.interpreter_beside(celery.program)
        return read_worker(celery.options, draft.notes, where=name).fields(draft)
    if any(_INDEX in word for word in words):
        line = " ".join('"$FLEET_INDEX"'.join(map(shlex.quote, word.split(_INDEX))) for word in words)
        words = ["sh", "-c", f"exec {line}".replace("''", "")]
    group: dict[str, object] = {"command": words}
    return group | ({"rollout": {"strategy": "recreate"}} if celery is not None and celery.verb == "beat" else {})


def _shell_line(name: str, line: str, draft: Draft) -> dict[str, object]:
    """A line that a shell would run, with variables before it."""
    if _SHELL.search(line):
        return {"command": ["sh", "-c", f"exec {line}" if _is_simple(line) else line]}
    words, variables = shlex.split(line), dict[str, str]()
    words = words[1:] if words[:1] in (["exec"], ["env"]) else words
    while words and (match := re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", words[0], re.DOTALL)):
        variables[match[1]] = match[2]
        words = words[1:]
    return {**_group(name, words, draft), **_allowed_env(name, variables, draft)} if words else {}


def _is_simple(line: str) -> bool:
    """One program without a list of commands: the shell may `exec` it, so that signals reach it."""
    return re.search(r"[|&;()`\n]", line) is None and re.match(r"\s*(exec\b|\w+=)", line) is None


def _allowed_env(name: str, variables: Mapping[str, str], draft: Draft) -> dict[str, object]:
    kept = {key: value for key, value in variables.items() if not key.startswith("FLEET_")}
    for key in sorted(set(variables) - set(kept)):
        draft.note(f"{name}: {key}: names beginning with FLEET_ are fleet's own; left out")
    return {"env": kept} if kept else {}


_READERS: dict[str, Callable[[str, Draft], None]] = {
    "celery-multi": _celery_multi,
    "procfile": _procfile,
    "supervisor": _supervisor,
}
_EXPECTED = {
    "celery-multi": "give a line `celery multi start …` or a file with CELERYD_NODES and CELERYD_OPTS",
    "procfile": "give lines like `worker: celery -A shop worker`",
    "supervisor": "give sections [program:…] with command=",
}
