"""Any program as a group: a Celery worker becomes a group with an app, anything else a command."""

from __future__ import annotations

import re
import shlex

from fleet.authoring.convert.celery_options import CeleryCommand, celery_command, read_worker
from fleet.authoring.convert.draft import Draft, DraftGroup, Program
from fleet.authoring.convert.shell import (
    Command,
    Line,
    from_environment,
    leading_assignments,
    read_line,
    unquoted_single,
    variables_of,
    with_exec,
)
from fleet.authoring.convert.waiting import without_waiting
from fleet.authoring.convert.wrappers import hidden_worker, unwrap
from fleet.authoring.yaml_writer import span

_SHELLS = re.compile(r"(?:^|/)(sh|bash|dash|ash|zsh)$")


_MOST_SHELLS = 3  # a shell in a shell; a deeper one stays as it is


def add_program(draft: Draft, program: Program) -> None:
    """Add the group that runs the program, and notes on what it cannot carry over."""
    if group := drafted(draft, program):
        draft.add(group)


def drafted(draft: Draft, program: Program, *, stem: str = "") -> DraftGroup | None:
    """The group that runs the program, or None when there is nothing to run."""
    for _ in range(_MOST_SHELLS):
        _open_shell(program)
        if program.shell:
            _read_shell(program)
        if program.shell or not _is_shell_line(program.words):
            break
    if not program.words and not program.shell:
        draft.note(f"{program.name}: nothing to run", program.line)
        return None
    group = DraftGroup({}, program.name, line=program.line, umask=program.umask, stem=stem, after=program.after)
    waits_for = _waits_for(program)
    runs = _worker(draft, program, group) if program.words else None
    if runs is None:
        runs = {"command": _command(program)}
        _say_hidden(draft, program)
    _take_of_command(draft, program, is_command="command" in runs)
    if waits_for:
        program.fields["waitFor"] = waits_for
    group.workdir = program.workdir
    group.fields = {**runs, **_surroundings(draft, program), **program.fields}
    return group


def _take_of_command(draft: Draft, program: Program, *, is_command: bool) -> None:
    """Fields of commands; of a Celery worker they are notes."""
    for one in program.of_command:
        if not is_command:
            if one.left_out:
                draft.note(f"{program.name}: {one.left_out}", one.line or program.line)
        elif isinstance(one.value, dict):
            before = program.fields.get(one.field)
            program.fields[one.field] = {**(before if isinstance(before, dict) else {}), **one.value}
        else:
            program.fields[one.field] = one.value


def _waits_for(program: Program) -> object:
    """What a script in front of the program waits for; the script is left out."""
    found = without_waiting(program.words)
    if found is None:
        return None
    program.words = found.words
    return {"urls": list(found.urls), "timeout": span(found.seconds)} if found.seconds else list(found.urls)


def _open_shell(program: Program) -> None:
    """``bash -c "line"`` is a line for that shell."""
    words = program.words
    if _is_shell_line(words):
        program.shell, program.shell_program, program.words = words[2], words[0], []


def _is_shell_line(words: list[str]) -> bool:
    return len(words) == 3 and _SHELLS.search(words[0]) is not None and words[1] == "-c"


def _read_shell(program: Program) -> None:
    """Take from the line what needs no shell; what is left is ``words`` or ``shell``."""
    line = read_line(program.shell)
    for name in line.variables:
        program.inherit.setdefault(name, "")
    if line.compound or any(command.operator not in {"&&", ";", "", "\n"} for command in line.commands):
        return
    commands = _without_preparation(program, line)
    if not commands:
        program.shell = ""
        return
    last = commands[-1].text
    if len(commands) == 1 and not commands[0].needs_shell and _as_words(program, last, commands[0].expands):
        program.shell = ""
        return
    before = " && ".join(command.text for command in commands[:-1])
    program.shell = f"{before} && {with_exec(last)}" if before else with_exec(last)
    if before and any(command.operator != "&&" for command in commands[:-1]):
        program.shell = "".join(f"{each.text}{_joined(each.operator)}" for each in commands[:-1]) + with_exec(last)


def _joined(operator: str) -> str:
    return " && " if operator == "&&" else "; "


def _without_preparation(program: Program, line: Line) -> list[Command]:
    """The commands without ``cd FOLDER`` and ``export A=1`` at the front, which become fields."""
    commands = list(line.commands)
    while len(commands) > 1 and not commands[0].needs_shell and not commands[0].expands:
        words = shlex.split(commands[0].text)
        if words[0] == "cd" and len(words) == 2 and not words[1].startswith("-"):
            program.workdir = _below(program.workdir, words[1])
        elif words[0] == "export" and len(words) > 1 and all("=" in word for word in words[1:]):
            program.env |= leading_assignments(words[1:])[0]
        else:
            break
        commands.pop(0)
    return commands


def _below(folder: str, path: str) -> str:
    return path if path.startswith("/") or not folder else f"{folder.rstrip('/')}/{path}"


def _as_words(program: Program, text: str, expands: bool) -> bool:
    """Whether the command runs without a shell. A Celery worker takes variables as the manifest reads them."""
    if not expands:
        variables, words = leading_assignments(shlex.split(text))
        program.env |= variables
        program.words = words
        return True
    if re.search(r"'[^']*\$", text):
        return False
    variables, words = leading_assignments(shlex.split(from_environment(text)))
    celery = celery_command(unwrap(words).words)
    if celery is None or celery.verb != "worker" or read_worker(celery.options).unable():
        return False
    program.env |= variables
    program.words = words
    for name in variables_of(text):
        program.inherit.pop(name, None)
    return True


def _command(program: Program) -> list[str]:
    return [program.shell_program, "-c", program.shell] if program.shell else list(program.words)


def _worker(draft: Draft, program: Program, group: DraftGroup) -> dict[str, object] | None:
    """The fields of a Celery worker; None for a different program."""
    seen = unwrap(program.words)
    celery = celery_command(seen.words)
    if celery is None:
        return None
    if celery.verb == "beat":
        group.is_beat, group.package = True, celery.package
        program.fields.setdefault("rollout", {"strategy": "recreate"})
    if celery.verb != "worker":
        return None
    worker = read_worker(celery.options)
    if "app" not in worker.said and (app := seen.env.get("CELERY_APP") or program.env.get("CELERY_APP")):
        worker.said["app"] = app
    if why := worker.unable():
        draft.note(f"{program.name}: a Celery worker, kept as a command: {why}", program.line)
        return None
    fields = worker.fields(replicas=program.fields.get("replicas", 1))
    if seen.nice is not None:
        program.fields.setdefault("nice", seen.nice)
    for text in (*seen.notes, *worker.notes):
        draft.note(f"{program.name}: {text}", program.line)
    program.env = {**program.env, **seen.env}
    program.user = program.user or seen.user or worker.said.get("uid", "")
    program.group = program.group or seen.group or worker.said.get("gid", "")
    program.workdir = worker.said.get("workdir") or program.workdir
    _settle_later(draft, program, group, celery)
    group.broker = worker.said.get("broker", "")
    if beat := worker.beat():
        group.wants_beat = [*celery.launcher, *beat]
    return fields


def _settle_later(draft: Draft, program: Program, group: DraftGroup, celery: CeleryCommand) -> None:
    group.is_celery, group.package = True, celery.package
    group.python = celery.python
    if not celery.python and "/" in celery.launcher[0]:
        text = f"{celery.launcher[0]}: its interpreter is unknown; write release.python unless it is the one of fleet"
        draft.note(f"{program.name}: {text}", program.line)


def _say_hidden(draft: Draft, program: Program) -> None:
    words = program.words
    if not words and program.shell:
        words = program.shell.split()
    if why := hidden_worker(words):
        draft.note(f"{program.name}: {why}", program.line)


def _surroundings(draft: Draft, program: Program) -> dict[str, object]:
    """Environment and account, the one place where they are written."""
    env = dict(program.env)
    for key in sorted(key for key in env if key.startswith("FLEET_")):
        draft.note(f"{program.name}: {key}: names beginning with FLEET_ are fleet's own; left out", program.line)
        del env[key]
    for key in sorted(key for key in env if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key)):
        draft.note(f"{program.name}: {key}: not a name of a variable; left out", program.line)
        del env[key]
    found: dict[str, object] = {"env": env} if env else {}
    if sources := _sources(program):
        found["envFrom"] = sources
    secret = {key: name for key, name in program.secret_env.items() if key not in env}
    if secret:
        found["secretEnv"] = secret
    if program.user:
        found["user"] = program.user
    if program.group:
        found["group"] = program.group
    return found


_GIVEN = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME"})


def _sources(program: Program) -> list[object]:
    """What ``envFrom`` says: files, and variables that the surroundings gave, apart those that may be missing."""
    names = [
        name for name in program.inherit if name not in _GIVEN | set(program.env) and not name.startswith("FLEET_")
    ]
    optional = [
        name
        for name in names
        if program.inherit[name] == "optional" or re.search(rf"\$\{{{name}:?[-+]", unquoted_single(program.shell))
    ]
    needed = [name for name in names if name not in optional]
    sources: list[object] = []
    for path in program.env_files:
        said: dict[str, object] = {"file": path.removeprefix("-")}
        sources.append(said | {"optional": True} if path.startswith("-") else said)
    sources += [{"inherit": needed}] if needed else []
    sources += [{"inherit": optional, "optional": True}] if optional else []
    return sources
