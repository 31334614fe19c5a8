"""Lines that a shell would run: their commands, what in them needs a shell, and the variables they use."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

_OPERATORS = ("&&", "||", ";;", "|&", ";", "|", "&", "\n")
_RESERVED = frozenset({"if", "for", "while", "until", "case", "{", "!", "select", "function", "[["})
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE = re.compile(rf"(?<!\$)\$(?!\{{env:)(?:(?P<bare>{_NAME})|\{{(?P<braced>{_NAME})(?P<rest>[^}}]*)\}})")
ASSIGNMENT = re.compile(rf"(?P<name>{_NAME})=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a line, and the operator after it (empty after the last).

    ``expands``: it holds variables. ``needs_shell``: patterns, redirections, substitutions, or variables in a form
    that only a shell knows.
    """

    text: str
    operator: str
    expands: bool
    needs_shell: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line taken apart. ``compound``: it has loops, conditions, groups or subshells."""

    commands: tuple[Command, ...]
    compound: bool
    variables: tuple[str, ...] = field(default=())


def read_line(text: str) -> Line:
    """Raises ValueError for a quote without an end."""
    shlex.split(text)
    commands: list[Command] = []
    compound, position, start, quote = False, 0, 0, ""
    needs = False
    while position < len(text):
        char = text[position]
        if char == "\\" and quote != "'":
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
            needs = needs or (quote == '"' and (char == "`" or text.startswith("$(", position)))
        elif char in "'\"":
            quote = char
        elif char == "#" and (position == 0 or text[position - 1].isspace()):
            break
        elif char == "&" and position and text[position - 1] in "<>":
            needs = True
        elif operator := next((each for each in _OPERATORS if text.startswith(each, position)), ""):
            if operator == "&" and text[position + 1 : position + 2] == ">":
                needs = True
            else:
                commands.append(_command(text[start:position], operator, needs))
                position, needs = position + len(operator), False
                start = position
                continue
        elif char in "()":
            compound = True
        elif char in "<>`*?[]~":
            needs = True
        position += 1
    commands.append(_command(text[start:position], "", needs))
    kept = tuple(command for command in commands if command.text)
    compound = compound or any(command.text.split()[0] in _RESERVED for command in kept)
    return Line(kept, compound, variables_of(text))


def _command(text: str, operator: str, needs_shell: bool) -> Command:
    expands = "$" in re.sub(r"\$+\{env:", "", unquoted_single(text))
    left = _VARIABLE.sub(lambda match: "" if _plain(match) else match[0], unquoted_single(text))
    return Command(text.strip(), operator, expands, needs_shell or "$" in re.sub(r"\$+\{env:", "", left))


def _plain(match: re.Match[str]) -> bool:
    return match["bare"] is not None or match["rest"] == "" or match["rest"].startswith(":-")


def unquoted_single(text: str) -> str:
    """The text without what is in single quotes or after a backslash: nothing there is a variable."""
    return re.sub(r"\\.|'[^']*'(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", "", text, flags=re.DOTALL)


def variables_of(text: str) -> tuple[str, ...]:
    """Names of the variables that the text expects from around it."""
    names = [match["bare"] or match["braced"] for match in _VARIABLE.finditer(unquoted_single(text))]
    own = set(re.findall(rf"(?:^|[\s;&|])(?:export\s+)?({_NAME})=", text))
    return tuple(dict.fromkeys(name for name in names if name not in own))


def from_environment(text: str) -> str:
    """``$X`` and ``${X:-d}`` as the manifest writes them: ``${env:X}``, ``${env:X:-d}``."""
    return _VARIABLE.sub(_reference, text)


def _reference(match: re.Match[str]) -> str:
    name, rest = match["bare"] or match["braced"], match["rest"] or ""
    if rest.startswith((":-", "-")):
        return f"${{env:{name}:-{rest[rest.index('-') + 1 :]}}}"
    return f"${{env:{name}}}"


def leading_assignments(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """``A=1 B=2 prog x`` -> the variables, and the rest. ``exec`` and ``env`` before them are left out."""
    variables: dict[str, str] = {}
    rest = list(words)
    while rest:
        if rest[0] in {"exec", "env"} and len(rest) > 1 and not rest[1].startswith("-"):
            rest = rest[1:]
        elif match := ASSIGNMENT.fullmatch(rest[0]):
            variables[match["name"]] = match["value"]
            rest = rest[1:]
        else:
            break
    return variables, rest


def with_exec(command: str) -> str:
    """The command so that the shell becomes it: ``A=1 prog`` -> ``A=1 exec prog``."""
    match = re.match(rf"((?:{_NAME}=(?:\"[^\"]*\"|'[^']*'|[^\s'\"]*)\s+)*)(.*)", command, re.DOTALL)
    before, rest = (match[1], match[2]) if match else ("", command)
    word = rest.split(maxsplit=1)[0] if rest.split() else ""
    if word in {"exec", "cd", "export", "set", "exit", "source", ".", "wait", "trap", "eval"} or not word:
        return command
    return f"{before}exec {rest}"
