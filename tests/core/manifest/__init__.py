"""Tests of fleet.core.manifest."""
