"""Kubernetes: the objects of a fleet."""
