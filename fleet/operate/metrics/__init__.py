"""Metrics of fleets for Prometheus: what they are, from what they are read, and the two ways they are given out."""
