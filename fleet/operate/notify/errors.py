"""What the doors of notifications raise."""

from __future__ import annotations

from fleet.errors import FleetError


class NotSent(FleetError):
    """A notification did not arrive. The message holds no secret.  is_final: another attempt would do harm."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final
