"""Tests of fleet.core.autoscale."""
