"""Fleets that start with the machine, as systemd services."""
