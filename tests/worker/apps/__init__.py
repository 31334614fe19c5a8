"""Tests of fleet.worker.apps."""
