"""Tests of fleet.broker.channels."""
