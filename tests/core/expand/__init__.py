"""Tests of fleet.core.expand."""
