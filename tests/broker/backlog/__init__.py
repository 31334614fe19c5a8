"""Tests of fleet.broker.backlog."""
