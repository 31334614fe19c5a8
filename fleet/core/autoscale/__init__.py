"""Samples of load become slots per group, over time."""
