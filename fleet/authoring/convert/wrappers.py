"""Programs that run another program: which of them a Celery worker is seen through, and which hide it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.authoring.convert.celery_options import celery_command
from fleet.authoring.convert.shell import ASSIGNMENT, leading_assignments

_RUNNERS = {
    "poetry": "`poetry env info --executable`",
    "pipenv": "`pipenv --py`",
    "pdm": "`pdm info --python`",
    "uv": ".venv/bin/python",
    "rye": ".venv/bin/python",
    "hatch": "`hatch env find`/bin/python",
}
_INITS = frozenset({"dumb-init", "tini", "tini-static", "catatonit", "nohup", "setsid"})
_AGENTS = ("newrelic-admin", "ddtrace-run", "opentelemetry-instrument", "scout-apm", "elastic-apm-run")


@dataclass(slots=True)
class Unwrapped:
    """The words inside, what the wrappers set, and notes on what is left out."""

    words: list[str]
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    group: str = ""
    nice: int | None = None
    notes: list[str] = field(default_factory=list)


def unwrap(words: Sequence[str]) -> Unwrapped:
    """What runs inside of wrappers that matter only to the environment, the account or a start by hand."""
    found = Unwrapped(list(words))
    while found.words and _step(found):
        pass
    return found


def _step(found: Unwrapped) -> bool:
    words = found.words
    program = words[0].rpartition("/")[2]
    if program in {"exec", "env"} or ASSIGNMENT.fullmatch(words[0]):
        variables, rest = leading_assignments(words)
        found.env |= variables
        found.words = rest
        return len(rest) < len(words)
    if program in _RUNNERS and words[1:2] == ["run"]:
        found.words = _after_options(words[2:], flags_only=True)
        found.notes.append(f"{program} run: left out; write release.python: {_RUNNERS[program]}")
        return True
    if program in _INITS:
        found.words = _after_options(words[1:], flags_only=True)
        found.notes.append(f"{program}: left out; fleet's launcher and supervisord do this")
        return True
    if program == "nice":
        said = re.match(r"(?:-n ?|--adjustment[= ]|-)(-?[0-9]{1,2})(?: |$)", " ".join(words[1:3]))
        found.nice, found.words = int(said[1]) if said else 10, _after_options(words[1:])
        return True
    if program == "ionice":
        found.words = _after_options(words[1:])
        found.notes.append(f"{' '.join(words[: len(words) - len(found.words)])}: left out")
        return True
    if program == "watchmedo" and "--" in words:
        found.words = words[words.index("--") + 1 :]
        found.notes.append("watchmedo: left out; `release: {watch: content}` replaces workers when the code changes")
        return True
    return _account(found, program)


def _account(found: Unwrapped, program: str) -> bool:
    """``gosu USER``, ``su-exec USER``, ``sudo -u USER``, ``chpst -u USER``: the account is a field."""
    words = found.words
    if program in {"gosu", "su-exec"} and len(words) > 2:
        account, found.words = words[1], words[2:]
    elif program in {"sudo", "chpst", "setuidgid"} and "-u" in words[:4] and len(words) > words.index("-u") + 2:
        place = words.index("-u")
        account, found.words = words[place + 1], _after_options(words[place + 2 :], flags_only=True)
    else:
        return False
    found.user, _, found.group = account.partition(":")
    return True


def _after_options(words: list[str], *, flags_only: bool = False) -> list[str]:
    """The words after the options at the front; an option of one letter may take the next word."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if not flags_only and re.fullmatch("-[a-z]", word) and rest and not rest[0].startswith("-"):
            rest.pop(0)
    return rest


def hidden_worker(words: Sequence[str]) -> str:
    """What to say of a command in which a Celery worker runs that fleet cannot see, or nothing."""
    for position, word in enumerate(words):
        inner = celery_command(words[position:])
        if inner is not None and inner.verb == "worker" and words[0] in {"exec", words[position]}:
            return (
                "a Celery worker, kept as a command behind a shell: a number, a redirection or several commands"
                " cannot be a field"
            )
        if inner is not None and inner.verb == "worker":
            agent = next((name for name in _AGENTS if words[0].endswith(name)), words[0])
            return (
                f"{agent} runs a Celery worker: kept as a command, so fleet sees neither its slots nor its tasks;"
                " start the agent in the app to make it `worker: celery`"
            )
        if word.endswith("manage.py") and list(words[position + 1 : position + 3]) == ["celery", "worker"]:
            return (
                "manage.py celery runs a Celery worker: kept as a command; with an app as module:attribute"
                " it can be `worker: celery`"
            )
        if word.endswith("manage.py") and list(words[position + 1 : position + 2]) == ["celeryd"]:
            return "manage.py celeryd runs a Celery worker of an old version: kept as a command"
    return ""
