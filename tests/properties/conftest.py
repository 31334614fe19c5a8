"""Properties are patient: how long an example takes says nothing about whether it holds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("fleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fleet")
