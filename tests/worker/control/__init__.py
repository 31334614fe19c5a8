"""Tests of fleet.worker.control."""
