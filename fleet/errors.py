"""The tree of errors that people see.

    FleetError                     1    something went wrong
    ├── UsageError                64    the command line is wrong
    ├── ManifestError              3    the manifest is refused; carries every Problem found
    ├── Damaged                    1    a file of fleet's own makes no sense
    ├── CannotWrite                1    the system refuses a file: a full disk, a missing right
    ├── AppUnusable                1    the code holds no such app, and trying again changes nothing
    ├── NotReady                   4    the fleet was not ready before --timeout
    ├── RolloutFailed              5/6  a rollout failed: rolled back, or paused for a person
    ├── StalePlan                  7    the fleet changed since `plan --out`
    ├── LockHeld                   8    another fleet command is changing this fleet
    ├── Refused                    9    a guard (budget, --max-destroy, capability) said no
    ├── Unreachable               10    supervisord, the cluster or the broker does not answer
    └── Interrupted          130/143    stopped by a signal; run the same command again to resume

A message says what is wrong and where; the hint says what to do; the class carries the exit code. Only doors translate
foreign exceptions (``raise … from exc``); only ``cli`` catches to print; the unexpected keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class FleetError(Exception):
    """Something went wrong."""

    exit_code = 1

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.hint = hint

    @property
    def message(self) -> str:
        """What went wrong and where, in one sentence."""
        return str(self.args[0])


class UsageError(FleetError):
    """The command line is wrong."""

    exit_code = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a manifest. Lines and columns count from 1; 0 means unknown."""

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        head = f"{place}  {self.path}: {self.message}" if self.path else f"{place}  {self.message}"
        return f"{head}\n  hint: {self.hint}" if self.hint else head


class ManifestError(FleetError):
    """The manifest is refused; nothing was touched."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Damaged(FleetError):
    """A file of fleet's own makes no sense; nothing was guessed from it."""


class CannotWrite(FleetError):
    """The system refuses a file."""


class AppUnusable(FleetError):
    """The code holds no such app, and trying again changes nothing."""


class NotReady(FleetError):
    """The fleet was not ready before the timeout."""

    exit_code = 4


class RolloutFailed(FleetError):
    """A rollout failed."""

    exit_code = 6

    def __init__(self, message: str = "", *, hint: str = "", rolled_back: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 5 if rolled_back else 6


class StalePlan(FleetError):
    """The fleet changed since the plan was written."""

    exit_code = 7


class LockHeld(FleetError):
    """Another fleet command is changing this fleet."""

    exit_code = 8


class Refused(FleetError):
    """A guard refused the change."""

    exit_code = 9


class Unreachable(FleetError):
    """Supervisord, the cluster or the broker does not answer."""

    exit_code = 10


class Interrupted(FleetError):
    """Stopped by a signal; run the same command again to resume."""

    exit_code = 130

    def __init__(self, message: str = "", *, hint: str = "", signum: int = 2) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signum
