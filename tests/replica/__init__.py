"""Tests of fleet.replica and of the launcher."""
