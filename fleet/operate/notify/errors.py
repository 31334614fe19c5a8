"""What the doors of notifications raise."""

from __future__ import annotations

from fleet.errors import FleetError


class NotSent(FleetError):
    """A notification did not arrive. The message holds no secret."""
