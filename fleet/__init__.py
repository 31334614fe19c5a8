"""fleet: a declarative, config-driven worker fleet.

The public face for applications is :class:`fleet.Tasks`; everything else is the ``fleet`` command. Names are imported
on first use, so that ``import fleet`` costs nothing in the launcher and in ``fleet --help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleet._version import __version__

if TYPE_CHECKING:
    from fleet.tasks import Retry, Task, Tasks

__all__ = ["Retry", "Task", "Tasks", "__version__"]


def __getattr__(name: str) -> Any:
    if name in {"Retry", "Task", "Tasks"}:
        from fleet import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module 'fleet' has no attribute {name!r}")
