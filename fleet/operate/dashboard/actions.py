"""What pages may do to a fleet, each as the words of the verb that does it: PURE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fleet.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}(\.[0-9]{1,6})?")
MOST_NAMES = 500
MOST_REASON = 500
MOST_COUNT = 100_000
_DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Action:
    """takes: what it needs to be told; groups and replicas by name, a count of one group, a revision."""

    verb: str
    takes: str
    words: tuple[str, ...] = ()


ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        "scale": Action("scale", "count", ("--live",)),
        "drain": Action("drain", "names"),
        "resume": Action("resume", "names"),
        "pause": Action("pause", "names"),
        "restart": Action("restart", "names"),
        "rollback": Action("rollback", "revision"),
    }
)


def planning_words(fleet: str, asked: Mapping[str, Any]) -> list[str]:
    """The command line that shows the plan. Raises UsageError for what no page asks."""
    return [*_words(fleet, asked), "--dry-run"]


def acting_words(fleet: str, asked: Mapping[str, Any]) -> list[str]:
    """The command line that does it, as long as the plan is the one that was shown."""
    digest = asked.get("planDigest")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise UsageError("planDigest is missing", hint="ask for the plan first")
    reason = asked.get("reason", "")
    if not isinstance(reason, str) or len(reason) > MOST_REASON or "\0" in reason:
        raise UsageError(f"the reason is no text of at most {MOST_REASON} characters")
    words = [*_words(fleet, asked), "--yes", f"--if-plan={digest}"]
    return [*words, f"--reason={reason}"] if reason.strip() else words


def stacks_words(fleet: str, replica: str) -> list[str]:
    """The command line that asks a worker for its stacks."""
    return ["stacks", "--output=json", f"--fleet={fleet}", *_names([replica])]


def _words(fleet: str, asked: Mapping[str, Any]) -> list[str]:
    action = ACTIONS.get(str(asked.get("action")))
    if action is None:
        raise UsageError(f"there is no such action; there are {', '.join(ACTIONS)}")
    return [action.verb, "--output=json", f"--fleet={fleet}", *action.words, *_told(action, asked)]


def _told(action: Action, asked: Mapping[str, Any]) -> list[str]:
    if action.takes == "names":
        return _names(asked.get("names"))
    if action.takes == "revision":
        return [f"--to={_number(asked.get('revision'), 'revision')}"]
    group = _names([asked.get("group")])[0]
    return [f"{group}={_number(asked.get('count'), 'count')}"]


def _names(names: object) -> list[str]:
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_NAMES:
        raise UsageError("names is no list of groups or replicas")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(f"not the name of a group or replica: {str(name)[:80]!r}")
    return list(names)


def _number(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_COUNT:
        raise UsageError(f"{what} is no number from 0 to {MOST_COUNT}")
    return value
