"""What somebody may be told of; apart from the models, so that who reads news imports no pydantic."""

from __future__ import annotations

from typing import Literal

NewsKind = Literal[
    "rollout.started",
    "rollout.done",
    "rollout.failed",
    "rollback.done",
    "rollback.failed",
    "crash",
    "parked",
    "heal",
    "heal.warned",
    "heal.failed",
    "controller.stuck",
    "sync.done",
    "sync.failed",
]
PROBLEMS: tuple[NewsKind, ...] = (
    *("rollout.failed", "rollback.failed", "crash", "parked", "heal.failed", "controller.stuck", "sync.failed"),
)
