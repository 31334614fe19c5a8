"""Tests of fleet.worker.loop."""
