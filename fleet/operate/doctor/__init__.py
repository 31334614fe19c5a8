"""Looks for what is wrong with a fleet, and fixes what is safe to fix."""
