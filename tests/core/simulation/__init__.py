"""Tests of fleet.core.simulation."""
