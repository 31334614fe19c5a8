"""Lines ``celery multi start …``, as people keep them in scripts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from fleet.authoring.convert.celery_options import FLAG_OPTIONS
from fleet.authoring.convert.draft import Draft, Program
from fleet.authoring.convert.programs import drafted
from fleet.authoring.convert.shell import leading_assignments, read_line
from fleet.errors import UsageError

KIND = "celery-multi"
EXPECTED = "give a line `celery multi start …` or a file with CELERYD_NODES and CELERYD_OPTS"
_START = frozenset({"start", "restart"})
_OTHER = frozenset({"stop", "stopwait", "stop_verify", "show", "names", "expand", "get", "kill", "help"})
_NODE = re.compile(r"[A-Za-z0-9_.@%-]+")
_MOST_NODES = 1000


def is_kind(text: str) -> bool:
    return any("multi" in words for _, words in _multi_lines(text))


def read(text: str, draft: Draft) -> None:
    """Add the nodes of every multi line; other lines are noted."""
    if re.search(r"\bceleryd_multi\b", text):
        raise UsageError(
            f"{draft.source}: celeryd_multi of django-celery is not read",
            hint="write the line as `celery multi start … -A APP`",
        )
    lines = _multi_lines(text)
    if not lines:
        raise UsageError(f"{draft.source}: there is no `celery multi` in it", hint=EXPECTED)
    env: dict[str, str] = {}
    workdir = ""
    for number, line in _logical_lines(text):
        found = next((words for at, words in lines if at == number), None)
        words = shlex.split(line, comments=True)
        if found is not None:
            variables, found = leading_assignments(found)
            add_nodes(draft, found, Program("", number, env={**env, **variables}, workdir=workdir))
        elif words[0] == "cd" and len(words) == 2:
            workdir = words[1]
        elif words[0] == "export" or all("=" in word for word in words):
            env |= leading_assignments(words[words[0] == "export" :])[0]
        else:
            draft.note(f"{line}: not a line of celery multi; left out", number)


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines with those that end in a backslash joined, each with its number; empty lines and comments left out."""
    found: list[tuple[int, str]] = []
    number, pending = 1, ""
    start = 1
    for number, line in enumerate(text.splitlines(), 1):
        start = start if pending else number
        if line.rstrip().endswith("\\") and not line.lstrip().startswith("#"):
            pending += line.rstrip()[:-1] + " "
            continue
        whole, pending = (pending + line).strip(), ""
        if whole and not whole.startswith("#"):
            found.append((start, whole))
    if pending.strip():
        found.append((start, pending.strip()))
    return found


def _multi_lines(text: str) -> list[tuple[int, list[str]]]:
    """The words of each line that runs ``celery multi``, from the program on; several commands on a line are split."""
    found = []
    for number, line in _logical_lines(text):
        try:
            commands = [shlex.split(command.text, comments=True) for command in read_line(line).commands]
        except ValueError:
            if re.search(r"\bcelery\b.*\bmulti\b", line):
                raise
            continue
        found += [(number, words) for words in commands if _is_multi(words)]
    return found


def _is_multi(words: list[str]) -> bool:
    """``celery multi …`` or ``python -m celery multi …``, with variables before it."""
    if "multi" not in words:
        return False
    program = leading_assignments(words[: words.index("multi")])[1]
    program = program[1:] if program[:1] == ["sudo"] else program
    if len(program) == 3 and program[1] == "-m" and re.search(r"(^|/)python[0-9.]*$", program[0]):
        program = program[2:]
    return len(program) == 1 and re.search(r"(^|/)celery$", program[0]) is not None


def add_nodes(draft: Draft, words: list[str], base: Program) -> None:
    """The nodes of one line as groups; ``base`` holds what all of them have in common."""
    launcher, rest = words[: words.index("multi")], words[words.index("multi") + 1 :]
    verb = rest[0] if rest and rest[0] in _START | _OTHER else ""
    if verb in _OTHER:
        draft.note(f"celery multi {verb}: starts nothing; left out", base.line)
        return
    nodes = read_nodes(rest[1:] if verb else rest)
    if bad := next((node for node in nodes if not _NODE.fullmatch(node)), ""):
        raise UsageError(f"{draft.source}:{base.line}: {bad!r} is not a name of a node", hint=EXPECTED)
    for node, options in nodes.items():
        stem = re.sub(r"\d+(@.*)?$", "", node) or node
        program = Program(
            re.sub(r"@.*$", "", node), base.line, [*launcher, "worker", *options], env=dict(base.env),
            env_files=list(base.env_files), workdir=base.workdir, user=base.user, group=base.group,
            fields=dict(base.fields), secret_env=dict(base.secret_env),
        )  # fmt: skip
        group = drafted(draft, program, stem=re.sub(r"@.*$", "", stem))
        if group is not None:
            draft.add_node(group)


def read_nodes(words: list[str]) -> dict[str, list[str]]:
    """Node -> its options; ``-c:1 3`` and ``-c:w1 3`` are for some nodes only."""
    names: list[str] = []
    common: list[str] = []
    special: list[tuple[list[str], list[str]]] = []
    position = 0
    while position < len(words):
        option, position = _option(words, position)
        if not option[0].startswith("-"):
            names += option
        elif match := re.fullmatch(r"(--?[A-Za-z-]+):([^=]+)(=.*)?", option[0], re.DOTALL):
            special.append((match[2].split(","), [match[1] + (match[3] or ""), *option[1:]]))
        else:
            common += option
    if len(names) == 1 and names[0].isdigit():
        names = [f"celery{number}" for number in range(1, min(int(names[0]), _MOST_NODES) + 1)]
    return {name: [*common, *_for_node(special, name, number)] for number, name in enumerate(names, 1)}


def _for_node(special: list[tuple[list[str], list[str]]], name: str, number: int) -> list[str]:
    return [word for whom, option in special if any(_is_meant(who, name, number) for who in whom) for word in option]


def _is_meant(who: str, name: str, number: int) -> bool:
    if match := re.fullmatch(r"(\d+)(?:-(\d+))?", who):
        return int(match[1]) <= number <= int(match[2] or match[1])
    return who == name or who.partition("@")[0] == name.partition("@")[0]


def _option(words: list[str], position: int) -> tuple[list[str], int]:
    """One word, or an option with its value."""
    word = words[position]
    name, _, value = word.partition("=")
    bare = name.split(":")[0]
    takes_value = word.startswith("-") and not value and bare not in FLAG_OPTIONS | {"--verbose", "--nosplash"}
    takes_value = takes_value and (word.startswith("--") or len(bare) == 2)
    if takes_value and position + 1 < len(words) and not words[position + 1].startswith("-"):
        return [word, words[position + 1]], position + 2
    return [word], position + 1


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """``$X`` and ``${X}`` replaced by what the file gives them; others stay."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: variables.get(match[1] or match[2], match[0]), text)
