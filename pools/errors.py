"""Every error the pools raise on purpose.

PoolError
├── PoolUnavailable       the kind of pool is unknown or its library is not installed
├── PoolClosed            no new work is accepted
├── SlotLost              the process of a slot died while it ran a task (exit status in the message)
├── HardTimeLimit         the task ran into its hard limit and was ended
├── MemoryLimit           the process of a slot grew far beyond its memory limit and was killed
├── SoftTimeLimit         raised inside the task when its soft limit is reached
├── Terminated            the task was ended on request, or taken back before it started
└── Unpicklable           arguments, result or exception of a task cannot travel between processes

Killed                    raised inside a task to end it; its handle gets HardTimeLimit or Terminated
"""

from __future__ import annotations


class PoolError(Exception):
    """A pool could not do what it was asked."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.hint = hint

    def __str__(self) -> str:
        # Of its own: Celery apps add billiard's class to the bases of SoftTimeLimit, whose text is that of a repr.
        return str(self.args[0]) if self.args else ""


class PoolUnavailable(PoolError):
    """The kind of pool is unknown or its library is not installed."""


class PoolClosed(PoolError):
    """The pool accepts no new work."""


class SlotLost(PoolError):
    """The process of a slot died while it ran a task."""

    def __init__(self, message: str = "", *, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class HardTimeLimit(PoolError):
    """The task ran into its hard time limit and was ended."""


class MemoryLimit(PoolError):
    """The process of a slot grew far beyond its memory limit while it ran the task, and was killed."""


class SoftTimeLimit(PoolError):
    """The task reached its soft time limit."""


class Terminated(PoolError):
    """The task was ended on request, or taken back before it started."""


class Unpicklable(PoolError):
    """The arguments, the result or the exception of a task cannot travel between processes."""


class Killed(SystemExit):
    """Raised inside a task that is to end now. No ``Exception``, so that ``except Exception`` lets it pass."""
