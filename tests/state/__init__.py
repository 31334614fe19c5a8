"""Tests of fleet.state."""
