"""supervisor's INI, as its own parser reads it."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator, Mapping

from fleet.authoring.convert.celery_options import REFERENCE, celery_command
from fleet.authoring.convert.draft import STOP_SIGNALS, Draft, OfCommand, Program
from fleet.authoring.convert.programs import drafted
from fleet.authoring.convert.wrappers import unwrap
from fleet.authoring.yaml_writer import span
from fleet.errors import UsageError

KIND = "supervisor"
EXPECTED = "give sections [program:…] with command="
_INDEX = re.compile("\x1aINDEX([0-9]*)\x1a")  # stands for the number of a process until it is known where it is used
_LEFT_OUT = {
    "stdout_logfile": "read the log with `fleet logs`",
    "stderr_logfile": "read the log with `fleet logs`",
    "redirect_stderr": "fleet keeps both in one log",
    "process_name": "replicas are GROUP.INDEX",
    "killasgroup": "fleet kills the whole process group",
    "serverurl": "a program that speaks to supervisor is not carried over",
}
_FALSE = frozenset({"false", "0", "no", "off"})
_READ = frozenset(
    {"command", "numprocs", "numprocs_start", "directory", "environment", "autostart", "autorestart", "stopwaitsecs"}
    | {"startsecs", "startretries", "priority", "umask", "user", "stopsignal", "stopasgroup", "exitcodes"}
)
_SUPERVISORD_READ = frozenset({"environment", "directory", "umask", "user"})
_TOOLS = frozenset({"unix_http_server", "inet_http_server", "supervisorctl", "rpcinterface"})


def is_kind(text: str) -> bool:
    return re.search(r"(?m)^\[(program:|fcgi-program:|include\]|supervisord\])", text) is not None


def read(text: str, draft: Draft, *, depth: int = 0) -> None:
    """Add the programs of the file and of those it includes."""
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"), allow_no_value=True)
    try:
        parser.read_string(text, source=draft.source)
    except configparser.Error as error:
        message = f"{draft.source}: not supervisor's INI: {error.message.splitlines()[0]}"
        raise UsageError(message, hint=EXPECTED) from error
    except AttributeError as error:  # configparser's own fault (in 3.11) with a line that continues a key without value
        message = f"{draft.source}: not supervisor's INI: an indented line continues a key that has no value"
        raise UsageError(message, hint=EXPECTED) from error
    lines = _lines(text)
    whole = dict(parser.items("supervisord")) if parser.has_section("supervisord") else {}
    _note_supervisord(draft, {key: value or "" for key, value in whole.items()}, lines)
    for section in parser.sections():
        kind, _, name = section.partition(":")
        options = {key: value or "" for key, value in parser.items(section)}
        where = {key: lines.get((section, key), lines.get((section, ""), 0)) for key in (*options, "")}
        if kind == "program":
            _program(draft, name.strip(), options, where, {key: value or "" for key, value in whole.items()})
        elif kind == "include":
            _include(draft, options.get("files", ""), where[""], depth)
        elif kind == "group":
            text_of_group = "groups of programs have no counterpart; name the groups on the command line"
            draft.note(f"[{section}] programs={options.get('programs', '')}: left out; {text_of_group}", where[""])
        elif kind in _TOOLS:
            draft.note(f"[{section}]: left out; fleet has a supervisord and a command line of its own", where[""])
        elif kind != "supervisord":
            draft.note(f"[{section}]: has no counterpart; left out", where[""])


def _lines(text: str) -> dict[tuple[str, str], int]:
    """(section, option) -> line; (section, "") is the section's own."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\[([^\]]+)\]", line):
            section = match[1]
            found[section, ""] = number
        elif match := re.match(r"([^\s=:;#][^=:]*?)\s*[=:]", line):
            found[section, match[1].lower()] = number
    return found


def _note_supervisord(draft: Draft, options: Mapping[str, str], lines: Mapping[tuple[str, str], int]) -> None:
    for key in sorted(set(options) - _SUPERVISORD_READ):
        text = f"[supervisord] {key}={options[key]}: left out; fleet runs a supervisord of its own"
        draft.note(text, lines.get(("supervisord", key), 0))


def _include(draft: Draft, files: str, line: int, depth: int) -> None:
    here = draft.source
    for pattern in files.split():
        paths = draft.files.matches(pattern) if depth == 0 else ()
        if not paths:
            draft.note(f"[include] {pattern}: no file was read; name the files after --from supervisor", line)
        for path in paths:
            text = draft.included(path)
            if text is None:
                draft.note(f"[include] {path}: cannot be read; left out", line)
                continue
            draft.source = path
            read(text, draft, depth=depth + 1)
            draft.source = here


def _program(
    draft: Draft, name: str, options: Mapping[str, str], lines: Mapping[str, int], whole: Mapping[str, str]
) -> None:
    start = _whole_number(options.get("numprocs_start", "0"))
    count = _whole_number(options.get("numprocs", "1"), default=1)
    values = {key: _unescaped(value, name, str(count)) for key, value in options.items()}
    if not values.get("command", "").strip():
        draft.note(f"{name}: no command; left out", lines[""])
        return
    env = {**_environment(_unescaped(whole.get("environment", ""), name, str(count)))}
    env |= _environment(values.get("environment", ""))
    folder = values.get("directory") or whole.get("directory", "")
    program = Program(
        name,
        lines["command"],
        env=env,
        workdir=draft.beside(folder) if folder else "",
        user=values.get("user") or whole.get("user", ""),
        umask=values.get("umask") or whole.get("umask", ""),
        fields={
            "replicas": _count_or_reference(values.get("numprocs", "1"), count),
            **_fields(draft, name, values, lines),
        },
    )
    _take_words(draft, program, shlex.split(values["command"]), lines, start)
    program.of_command = list(_of_command(draft, name, values, lines))
    group = drafted(draft, program)
    if group is None:
        return
    _note_rest(draft, name, values, lines)
    if (order := values.get("priority", "")).lstrip("-").isdigit():
        group.order = int(order)
    draft.add(group)


def _take_words(draft: Draft, program: Program, words: list[str], lines: Mapping[str, int], start: int) -> None:
    """The words of the command; where the number of the process is in it, a shell puts it in."""
    numbered = {key: value for key, value in program.env.items() if _INDEX.search(value)}
    program.env = {key: value for key, value in program.env.items() if key not in numbered}
    celery = celery_command(unwrap(words).words)
    plain = not any(_INDEX.search(word) for position, word in enumerate(words) if not _is_name(words, position))
    if plain and celery is not None and celery.verb == "worker":
        for key, value in numbered.items():
            text = f"environment {key}={_INDEX.sub('N', value)}: left out; the number of the process is FLEET_INDEX"
            draft.note(f"{program.name}: {text}", lines["environment"])
        exact = not start and not any(width for word in words for width in _INDEX.findall(word))
        program.words = [_INDEX.sub("{index}" if exact else "%N", word) for word in words]
    elif not numbered and not any(_INDEX.search(word) for word in words):
        program.words = words
    else:
        before = "".join(f"{key}={_numbered(value, start)} " for key, value in numbered.items())
        program.shell = f"{before}exec {' '.join(_numbered(word, start) for word in words)}"


def _is_name(words: list[str], position: int) -> bool:
    return words[position].startswith(("--hostname=", "-n")) or words[position - 1] in {"-n", "--hostname"}


def _numbered(word: str, start: int) -> str:
    """A word for a shell that puts the number of the process in."""
    parts = _INDEX.split(word)
    texts = [shlex.quote(text) if text else "" for text in parts[::2]]
    numbers = [_number_of(width, start) for width in parts[1::2]]
    return "".join(f"{text}{number}" for text, number in zip(texts, [*numbers, ""], strict=True)) or "''"


def _number_of(width: str, start: int) -> str:
    """The number of a process as shell text; the number of a replica begins at 0."""
    number = f"$((FLEET_INDEX + {start}))" if start else "$FLEET_INDEX"
    return f'"$(printf %{width}d {number})"' if width else f'"{number}"'


def _whole_number(text: str, default: int = 0) -> int:
    return min(int(text), 10_000) if text.strip().isdigit() else default


def _count_or_reference(text: str, count: int) -> int | str:
    return text.strip() if REFERENCE.fullmatch(text.strip()) else count


def _fields(draft: Draft, name: str, values: Mapping[str, str], lines: Mapping[str, int]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key in ("numprocs", "numprocs_start", "stopwaitsecs", "startsecs", "startretries"):
        is_count = key == "numprocs" and REFERENCE.fullmatch(values.get(key, "").strip())
        if key in values and not is_count and not values[key].strip().isdigit():
            draft.note(f"{name}: {key}={values[key]}: not a number; write it by hand", lines[key])
    if (wait := values.get("stopwaitsecs", "")).isdigit():
        fields["drain"] = {"timeout": span(int(wait))}
    if values.get("autostart", "true").lower() in _FALSE:
        fields["paused"] = True
    if (seconds := values.get("startsecs", "")).isdigit():
        fields["health"] = {"readyAfter": span(int(seconds))}
    if (tries := values.get("startretries", "")).isdigit() and int(tries) > 0:
        fields["restart"] = {"maxCrashes": int(tries)}
    return fields


def _of_command(draft: Draft, name: str, values: Mapping[str, str], lines: Mapping[str, int]) -> Iterator[OfCommand]:
    signal = values.get("stopsignal", "TERM").upper().removeprefix("SIG")
    if signal not in {"TERM", "15"}:
        text = f"stopsignal={signal}: left out; fleet stops a worker with TERM"
        if signal in STOP_SIGNALS:
            yield OfCommand("stop", {"signal": signal}, text, lines["stopsignal"])
        else:
            draft.note(f"{name}: stopsignal={signal}: left out; see stop.signal", lines["stopsignal"])
    if values.get("stopasgroup", "false").lower() not in _FALSE:
        text = "stopasgroup=true: left out; a worker ends its children itself"
        yield OfCommand("stop", {"group": True}, text, lines["stopasgroup"])
    again = values.get("autorestart", "unexpected").lower()
    if again not in {"true", "1", "yes", "on"}:
        policy = "never" if again in _FALSE else "onFailure"
        text = f"autorestart={again}: left out; fleet starts a worker again whenever it ends"
        said = "autorestart" in values  # without it a worker that ends well would stay down: nobody means that
        yield OfCommand("restart", {"policy": policy}, text if said else "", lines.get("autorestart", 0))
    if "exitcodes" in values and (again != "unexpected" or values["exitcodes"].replace(" ", "") != "0"):
        why = "only exit code 0 is no crash with restart.policy: onFailure"
        draft.note(f"{name}: exitcodes={values['exitcodes']}: left out; {why}", lines["exitcodes"])


def _note_rest(draft: Draft, name: str, values: Mapping[str, str], lines: Mapping[str, int]) -> None:
    for key in sorted(set(values) - _READ):
        why = _LEFT_OUT.get(key) or next((_LEFT_OUT[known] for known in _LEFT_OUT if key.startswith(known)), "")
        shown = _INDEX.sub("N", values[key])
        draft.note(f"{name}: {key}={shown}: left out; {why or 'it has no counterpart'}", lines[key])


def _unescaped(value: str, name: str, numprocs: str) -> str:
    """supervisor's own templates: ``%(ENV_X)s`` is the environment, ``%%`` a percent sign."""

    def one(match: re.Match[str]) -> str:
        key, form = match["key"], match["form"] or ""
        if match[0] == "%%":
            return "%"
        if key.startswith("ENV_"):
            return f"${{env:{key[4:]}}}"
        if key in {"program_name", "group_name"}:
            return name
        if key == "numprocs":
            return numprocs
        if key == "process_num":
            return f"\x1aINDEX{form}\x1a"
        return {"host_node_name": "${env:HOSTNAME:-localhost}", "here": "."}.get(key, match[0])

    return re.sub(r"%%|%\((?P<key>[A-Za-z_][A-Za-z0-9_]*)\)(?P<form>[0-9]*)[sd]", one, value)


def _environment(text: str) -> dict[str, str]:
    """``A="x",B='y z'`` as supervisor reads it."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=",")
    lexer.whitespace_split, lexer.commenters = True, ""
    pairs = (word.partition("=") for word in lexer if word.strip(","))
    return {name.strip(): value for name, _, value in pairs if name.strip()}
