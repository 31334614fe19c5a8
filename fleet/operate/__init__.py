"""Changing a fleet that runs."""
