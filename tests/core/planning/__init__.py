"""Tests of fleet.core.planning."""
