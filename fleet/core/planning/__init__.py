"""Desired and observed replicas become a plan."""
