"""The desk of the cluster's tests, for the controller in a cluster."""

from __future__ import annotations

from tests.backends.kubernetes.conftest import desk

__all__ = ["desk"]
