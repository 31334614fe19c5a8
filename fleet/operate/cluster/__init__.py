"""Changing a fleet that runs in a cluster."""
